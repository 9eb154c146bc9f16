"""The launcher of a process, from its environment variables: each kind, and variables that are stale or wrong."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mnist_amp.__main__ import main
from mnist_amp.cli import launchers, processes, rendezvous
from mnist_amp.cli.launchers import PARENT, Launch, detect, is_child, is_first
from mnist_amp.cli.rendezvous import Place, Wait
from mnist_amp.errors import RequestError, RunError, UsageError
from mnist_amp.runs import checkpoint_files
from tests.conftest import FOREIGN, WITH_TESTS, Refused, Run, command
from tests.runs.test_resume import flat

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", **MASTER},
}
SRUN = {
    **{"SLURM_JOB_ID": "7712", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"},
    **{"SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
}
OPEN_MPI = {
    f"OMPI_COMM_WORLD_{name}": value
    for name, value in zip(("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE"), "8514", strict=True)
}
HYDRA = {"PMI_SIZE": "8", "PMI_RANK": "5", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
HAND = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER}
BATCH = {name: value for name, value in SRUN.items() if "STEP" not in name}  # in the job's script, without srun


@pytest.mark.parametrize(
    ("env", "launcher"),
    [
        (TORCHRUN, "torchrun"),
        (SRUN, "srun"),
        ({**OPEN_MPI, **MASTER}, "mpirun"),
        ({**HYDRA, **MASTER}, "mpirun"),
        (HAND, "hand"),
        ({**TORCHRUN, **SRUN}, "torchrun"),  # torchrun in a job of SLURM
        ({**OPEN_MPI, **BATCH, **MASTER}, "mpirun"),
        ({**SRUN, "SLURM_NTASKS_PER_NODE": "4"}, "srun"),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, "srun"),
        ({**HYDRA, **SRUN}, "srun"),  # srun also sets those of PMI
    ],
)
def test_eight_processes_on_two_nodes(env: dict[str, str], launcher: str) -> None:
    launch = detect(env, parent=1)
    assert launch == Launch(launcher, nodes=2, per_node=4, rank=5, local_rank=1)
    assert (launch.world_size, launch.node_rank) == (8, 1)
    assert str(launch) == f"2 nodes x 4 processes, started by {launcher}"
    assert not is_first(env, parent=1)


@pytest.mark.parametrize(
    "env",
    [
        {**TORCHRUN, "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "1"},
        {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "4", **MASTER},
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "NODE_RANK": "0", **MASTER},
    ],
)
def test_four_processes_on_one_node(env: dict[str, str]) -> None:
    launch = detect(env, parent=1)
    assert launch is not None
    assert str(launch).startswith("4 processes, started by ")
    assert (launch.rank, launch.local_rank, launch.nodes) == (1, 1, 1)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
        {"NODE_RANK": "1"},  # one process on each node, which starts the others
        {"RANK": "0", "WORLD_SIZE": "1"},
        {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"},
        {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train"},
        {**BATCH, "SLURM_JOB_NAME": "interactive"},
        {**BATCH, "SLURM_JOB_NAME": "bash"},
        {**BATCH, "SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "1"},  # srun --pty bash
        {
            "OMPI_COMM_WORLD_SIZE": "1",
            "OMPI_COMM_WORLD_RANK": "0",
            **dict(list(OPEN_MPI.items())[2:]),
            "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
        },
    ],
)
def test_a_process_that_is_alone(env: dict[str, str]) -> None:
    assert detect(env, parent=1) is None
    assert is_first(env, parent=1)


def test_a_process_that_a_run_has_started() -> None:
    env = {PARENT: "12", "LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", **MASTER}
    assert is_child(env, parent=12)
    assert detect(env, parent=12) is None
    assert not is_first(env, parent=12)
    assert not is_child(env, parent=13)  # inherited by another process


NOT_SET = "A launcher sets them for each process. Remove them to run in one process, or use torchrun."
NUMBER = "in the environment, but must be a whole number of at least"
SETS_IT = "A launcher sets it; remove it to run in one process."
NO_ADDRESS = (
    "they can't find each other. Set the address of the first node and a free port on it, the same for all, or use "
    "torchrun. To run in one process, remove RANK, WORLD_SIZE and LOCAL_RANK."
)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"LOCAL_RANK": "1"}, f"the environment has LOCAL_RANK=1, but not RANK and WORLD_SIZE. {NOT_SET}"),
        ({"LOCAL_RANK": "0"}, f"the environment has LOCAL_RANK=0, but not RANK and WORLD_SIZE. {NOT_SET}"),
        ({"LOCAL_RANK": ""}, f"the environment has LOCAL_RANK=, but not RANK and WORLD_SIZE. {NOT_SET}"),
        ({"WORLD_SIZE": "2"}, f"the environment has WORLD_SIZE=2, but not RANK. {NOT_SET}"),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, f"the environment has RANK=1, but not WORLD_SIZE. {NOT_SET}"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, f"RANK is 'one' {NUMBER} 0. {SETS_IT}"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, f"WORLD_SIZE is '0' {NUMBER} 1. {SETS_IT}"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, f"RANK is '-1' {NUMBER} 0. {SETS_IT}"),
        ({**SRUN, "SLURM_PROCID": ""}, f"SLURM_PROCID is '' {NUMBER} 0. {SETS_IT}"),
        (
            {"RANK": "1", "WORLD_SIZE": "2"},
            f"there are 2 processes by WORLD_SIZE, but without MASTER_ADDR and MASTER_PORT {NO_ADDRESS}",
        ),
        (
            {**OPEN_MPI, "MASTER_PORT": "1"},
            f"there are 8 processes by mpirun, but without MASTER_ADDR {NO_ADDRESS}",
        ),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **MASTER},
            "RANK is 5 and LOCAL_RANK is 1, so there are several nodes. Set LOCAL_WORLD_SIZE, the number of processes "
            "on each of them, or use torchrun.",
        ),
        (
            {**TORCHRUN, "WORLD_SIZE": "7"},
            "torchrun has started 7 processes, which are not 4 on each node. Start as many on each.",
        ),
        (
            {**TORCHRUN, "RANK": "8"},
            "the number of this process is 8, but there are 8 processes, which are numbered from 0. The variables of "
            "torchrun contradict each other; start the command again.",
        ),
        (
            {**TORCHRUN, "LOCAL_RANK": "3"},
            "the process 5 of 8, with 4 on each node, can't be number 3 on its node. The variables of torchrun "
            "contradict each other; start the command again.",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "none"},
            f"the environment has TORCHELASTIC_RUN_ID=none, but not RANK and WORLD_SIZE. {NOT_SET}",
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": "2"},
            f"the environment has OMPI_COMM_WORLD_SIZE=2, but not OMPI_COMM_WORLD_LOCAL_SIZE. {NOT_SET}",
        ),
        (
            {**HAND, "MASTER_PORT": "abc"},
            "MASTER_PORT is 'abc' in the environment, but must be a port from 1 to 65535.",
        ),
        (
            {**HAND, "MASTER_PORT": "99999"},
            "MASTER_PORT is '99999' in the environment, but must be a port from 1 to 65535.",
        ),
        (
            BATCH,
            "this SLURM job has 8 tasks (SLURM_NTASKS), but srun has not started this process, so the others are "
            "missing. Begin the command with srun, or remove SLURM_NTASKS to run in one process.",
        ),
        (
            {"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
            "this SLURM job has 2 tasks (SLURM_NTASKS), but srun has not started this process, so the others are "
            "missing. Begin the command with srun, or remove SLURM_NTASKS to run in one process.",
        ),
    ],
)
def test_stale_and_wrong_variables(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], message: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert refused("fit", "--config=configs/smoke.yaml") == f"mnist-amp: error: {message}\n"
    assert list(Path().iterdir()) == []


def test_a_mistake_is_reported_with_stale_variables(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert refused("tset").startswith("mnist-amp: error: there is no command tset (did you mean test?);")


@pytest.mark.parametrize("name", ["predict", "export", "demo", "compare", "profile"])
def test_other_processes_have_nothing_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in {"RANK": "1", "WORLD_SIZE": "2", **MASTER}.items():
        monkeypatch.setenv(variable, value)
    assert run(name) == ""
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["predict", "export", "demo", "compare", "profile"])
def test_the_first_process_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for variable, value in {"RANK": "0", "WORLD_SIZE": "2", **MASTER}.items():
        monkeypatch.setenv(variable, value)
    ran: list[tuple[list[str], bool]] = []
    module = SimpleNamespace(run=lambda args: ran.append((args, "WORLD_SIZE" in os.environ)))
    monkeypatch.setattr("importlib.import_module", lambda name: module)
    main([name])
    assert ran == [([name, "--trainer.accelerator=cpu"], False)]  # as conftest.py sets it
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {name} runs in one process. The others of 2 processes, started by hand, have ended.\n"
    )


def test_all_variables_are_cleared() -> None:
    env = {**TORCHRUN, **SRUN, **OPEN_MPI, **HYDRA, "NODE_RANK": "0", "HOME": "/root", "SLURMX": "1"}
    launchers.clear(env)
    assert env == {"HOME": "/root", "SLURMX": "1"}


def test_variables_for_lightning() -> None:
    env = {**SRUN}
    launchers.prepare(Launch("srun", 2, 4, 5, 1), env)
    assert {name: env[name] for name in ("SLURM_NTASKS_PER_NODE", "SLURM_NNODES")} == {
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_NNODES": "2",
    }
    env = dict(OPEN_MPI)
    launchers.prepare(Launch("mpirun", 1, 4, 1, 1), env)
    assert env.pop("MASTER_PORT") == str(29500 + os.getppid() % 10_000)
    assert {name: env[name] for name in env if name not in OPEN_MPI} == {
        **{"RANK": "1", "LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"},
    }


@pytest.mark.parametrize("given", [[], ["--trainer.devices=4"], ["--trainer.devices=auto", "--trainer.num_nodes=2"]])
def test_the_trainer_uses_all_processes(given: list[str]) -> None:
    trainer: Any = {"devices": 1, "num_nodes": 1}
    processes.use_all(Launch("srun", 2, 4, 5, 1), trainer, given)
    assert trainer == {"devices": 4, "num_nodes": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("devices=1", "trainer.devices is 1, but there are 4 processes on each node, started by srun. Leave it out."),
        ("num_nodes=3", "trainer.num_nodes is 3, but there are processes on 2 nodes, started by srun. Leave it out."),
    ],
)
def test_the_trainer_contradicts_the_launcher(given: str, message: str) -> None:
    trainer: Any = {"devices": 1, "num_nodes": 1}
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        processes.use_all(Launch("srun", 2, 4, 5, 1), trainer, [f"--trainer.{given}"])


# the seed


SEEDS = (
    "seed_everything is true, but the processes of this run were started one by one, and would each choose another "
    "seed. Give a number."
)


@pytest.mark.parametrize(("launch", "nodes"), [(Launch("torchrun", 1, 2, 1, 1), 1), (None, 2)])
def test_processes_that_would_choose_seeds_of_their_own_are_refused(launch: Launch | None, nodes: int) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(SEEDS)}$"):
        processes.choose_seed(launch, nodes)


@pytest.mark.parametrize("seed", ["7", ""])
def test_a_chosen_seed_is_inherited(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    """Lightning's variable is not: a program may set it, and the processes that its run starts run it again."""
    monkeypatch.setenv("PL_GLOBAL_SEED", seed)
    chosen = processes.choose_seed(None, 1)
    assert os.environ[launchers.SEED] == str(chosen)
    assert processes.choose_seed(None, 1) != chosen  # in another fit of this process
    for name, value in {PARENT: str(os.getppid()), "LOCAL_RANK": "1", launchers.SEED: str(chosen)}.items():
        monkeypatch.setenv(name, value)
    assert processes.choose_seed(None, 1) == chosen


# the meeting


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_wait_is_reported_once_and_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    wait = Wait(Place("10.0.0.1", 29500, 1, 2), limit=6.0, clock=lambda: float(next(ticks)))
    for _ in range(6):
        wait.pause("the first process")
    with pytest.raises(RunError) as raised:
        wait.pause("the first process")
    assert capsys.readouterr().err == ("mnist-amp: waiting for the first process (at most 6 s; Ctrl-C ends it)\n")
    assert str(raised.value) == (
        "the processes of this run did not meet within 6 s: this one (rank 1) has waited for the first process. Start "
        "all 2, with the same MASTER_ADDR and MASTER_PORT; to run in one process, remove the variables of the launcher."
    )


def test_an_unknown_address() -> None:
    with pytest.raises(
        RequestError, match=r"^MASTER_ADDR is no\.invalid, which is not the address of a machine that can"
    ):
        rendezvous.meet(Place("no.invalid", 29500, 1, 2))


def test_a_port_that_is_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RunError, match=f"^the first process can't listen at 127.0.0.1:{port} "):
            rendezvous.meet(Place("127.0.0.1", port, 0, 2))


def test_the_interface_to_this_machine() -> None:
    env: dict[str, str] = {}
    rendezvous.use_interface_to("127.0.0.1", env)
    assert env == ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})
    rendezvous.use_interface_to("127.0.0.1", own := {"GLOO_SOCKET_IFNAME": "eth7"})
    assert own == {"GLOO_SOCKET_IFNAME": "eth7"}


# real processes; each start takes seconds

SMOKE = ("--config=configs/smoke.yaml", "--trainer.precision=32-true", "--trainer.accelerator=cpu")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)} | {"OMP_NUM_THREADS": "1"}


def start(*program: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(program, cwd=cwd, env={**ENVIRONMENT, **WITH_TESTS, **(env or {})}, **pipes)


def mnist_amp(*args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "mnist_amp", *args)


def torchrun(*args: str, options: tuple[str, ...]) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", *options, "-m", "mnist_amp", *args)


@pytest.mark.parametrize("cores", [1, 3])
def test_far_more_processes_than_cores_are_refused(
    cores: int, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four for each core are not: Lightning then starts them."""
    started: list[int] = []

    def launch(self: _SubprocessScriptLauncher, *args: Any, trainer: Trainer, **kwargs: Any) -> None:
        started.append(trainer.num_devices)
        raise RequestError("these were started")

    monkeypatch.setattr(_SubprocessScriptLauncher, "launch", launch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    assert refused("fit", *SMOKE, f"--trainer.devices={4 * cores + 1}") == (
        f"mnist-amp: error: trainer.devices is {4 * cores + 1}, but this machine has {cores} core"
        f"{'s' if cores > 1 else ''}. On a CPU each device is a process. More than 4 for each core are refused, "
        "because they only take time and memory from each other. "
        f"Give at most {4 * cores}; more than {cores} gain nothing.\n"
    )
    assert refused("fit", *SMOKE, f"--trainer.devices={4 * cores}") == "mnist-amp: error: these were started\n"
    assert started == [4 * cores]
    assert not Path("lightning_logs").exists()


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Return the folder of a run in two processes that Lightning has started."""
    folder = tmp_path_factory.mktemp("two")
    args = ("fit", *SMOKE, "--trainer.devices=2", f"--data.data_dir={data_dir}")
    command(*args, cwd=folder, env={"OMP_NUM_THREADS": "1"})
    return folder


def assert_same_run(folder: Path, expected: Path, version: int = 0) -> None:
    """Assert that two runs have the same weights, optimizer, progress and metrics, to the last bit."""
    found, wanted = (
        checkpoint_files.read(path / f"lightning_logs/version_{number}/checkpoints/last.ckpt")
        for path, number in ((folder, version), (expected, 0))
    )
    for key in ("state_dict", "optimizer_states", "loops", "train_means"):
        assert flat(found[key]) == flat(wanted[key]), key
    assert found["callbacks"]["RunCheckpoint"]["history"] == wanted["callbacks"]["RunCheckpoint"]["history"]
    logs = [
        path / f"lightning_logs/version_{number}/metrics.csv" for path, number in ((folder, version), (expected, 0))
    ]
    assert logs[0].read_text() == logs[1].read_text()


def test_torchrun_starts_one_run(tmp_path: Path, data_dir: Path, two_devices: Path) -> None:
    args = ("fit", *SMOKE, f"--data.data_dir={data_dir}")
    process = start(*torchrun(*args, options=("--standalone", "--nproc_per_node=2")), cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("processes  2 processes, started by torchrun\n") == 1
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    assert_same_run(tmp_path, two_devices)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "@", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {
            **{"SLURM_JOB_ID": "7712", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"},
            **{"SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "@", "SLURM_LOCALID": "@", "SLURM_NODEID": "0"},
            "SLURM_NODELIST": "127.0.0.1",
        },
        {
            **{"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "@"},
            **{"OMPI_COMM_WORLD_LOCAL_RANK": "@", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        },
    ],
    ids=["hand", "srun", "mpirun"],
)
def test_variables_make_one_run(
    tmp_path: Path, data_dir: Path, two_devices: Path, variables: dict[str, str], request: pytest.FixtureRequest
) -> None:
    port, args = str(free_port()), ("fit", *SMOKE, f"--data.data_dir={data_dir}")
    both = [
        start(
            *mnist_amp(*args),
            cwd=tmp_path,
            env={"MASTER_PORT": port} | {name: value.replace("@", rank) for name, value in variables.items()},
        )
        for rank in "01"
    ]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert f"processes  2 processes, started by {request.node.callspec.id}\n" in ended[0][0]
    assert ended[1][0] == ""
    assert_same_run(tmp_path, two_devices)


PROGRAM = """
import sys
from pathlib import Path
from lightning.pytorch import Callback, seed_everything
from mnist_amp.commands import fit

class Seeds(Callback):
    def on_train_start(self, trainer, module):
        Path(f"seed_{trainer.global_rank}").write_text(str(trainer.datamodule.seed))

seed_everything(7)
fit(*sys.argv[1:], "--seed_everything", True, "--trainer.devices", 2, "--trainer.callbacks", Seeds)
"""


def test_the_processes_of_a_program_have_the_seed_that_its_first_process_has_chosen(
    tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = start(sys.executable, "program.py", *SMOKE, f"--data.data_dir={data_dir}", cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    first, second = (tmp_path / f"seed_{rank}" for rank in (0, 1))
    assert first.read_text() == second.read_text() != "7"
    assert f"seed       {first.read_text()}\n" in out


def test_a_command_in_one_process_runs_once(tmp_path: Path, data_dir: Path) -> None:
    command("fit", *SMOKE, "--trainer.limit_train_batches=1", f"--data.data_dir={data_dir}", cwd=tmp_path)
    args = ("predict", f"--data.data_dir={data_dir}", "--trainer.limit_predict_batches=1")
    process = start(*torchrun(*args, options=("--standalone", "--nproc_per_node=2")), cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    note = (
        "mnist-amp: warning: predict runs in one process. The others of 2 processes, started by torchrun, have ended.\n"
    )
    assert err.count(note) == 1
    assert out.count("predict_best") == 1


@pytest.mark.parametrize(
    ("rank", "signum", "waits_for"),
    [("0", signal.SIGTERM, "1 process of 2 to connect to"), ("1", signal.SIGINT, "the first process at")],
)
def test_a_wait_ends_with_the_first_signal(tmp_path: Path, rank: str, signum: signal.Signals, waits_for: str) -> None:
    port = str(free_port())
    variables = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = start(*mnist_amp("fit", *SMOKE), cwd=tmp_path, env=variables)
    assert process.stderr is not None
    assert process.stderr.readline() == (
        f"mnist-amp: waiting for {waits_for} 127.0.0.1:{port} (at most 600 s; Ctrl-C ends it)\n"
    )
    process.send_signal(signum)
    assert process.wait(timeout=30) == 128 + signum
    assert process.stderr.read() == f"mnist-amp: stopped by {signum.name} at once.\n"
    assert list(tmp_path.iterdir()) == []
