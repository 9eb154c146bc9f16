"""Runs in processes of their own, ended by signals; they go on to the same end as a run that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.strategies.launchers import subprocess_script

from mnist_amp.cli.lightning_cli import prepare
from mnist_amp.cli.processes import Observer
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.atomic_files import STALE
from mnist_amp.signals import StopRequest
from tests.conftest import forked
from tests.forked import Forked
from tests.runs.test_exact import KEPT
from tests.runs.test_resume import flat

SETTINGS = (
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=300", "--trainer.max_epochs=3"),
    *("--checkpoint.every_n_train_steps=10", "--trainer.log_every_n_steps=7"),
)


def last(folder: Path, version: int) -> dict[str, Any]:
    return checkpoint_files.read(folder / f"lightning_logs/version_{version}/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, Any]:
    """Return the last checkpoint of a run that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", cwd=folder, env={"MNIST_AMP_TRAINER__ACCELERATOR": "cpu"})
    return {**last(folder, 0), "metrics.csv": (folder / "lightning_logs/version_0/metrics.csv").read_text()}


def ended(folder: Path, version: int, signum: int, delay: float, *args: str) -> tuple[int, str]:
    """Start a run, send it a signal `delay` seconds after its first checkpoint; returns exit status and stderr."""
    process = Forked("fit", *args, cwd=folder)
    wait_for(folder / f"lightning_logs/version_{version}/checkpoints/last.ckpt", process)
    time.sleep(delay)
    process.send_signal(signum)
    return process.wait(timeout=60), process.stderr


def wait_for(path: Path, process: Forked | subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def assert_goes_on(folder: Path, version: int, whole: dict[str, Any]) -> None:
    forked("fit", "--ckpt_path=last", cwd=folder)
    assert_same(folder, version, whole)


def assert_same(folder: Path, version: int, whole: dict[str, Any]) -> None:
    found = last(folder, version)
    for key in KEPT:
        assert flat(found.get(key)) == flat(whole.get(key)), key
    rows = (folder / f"lightning_logs/version_{version}/metrics.csv").read_text()
    assert rows == whole["metrics.csv"]


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_stops_between_two_steps(
    tmp_path: Path, data_dir: Path, whole: dict[str, Any], signum: signal.Signals, status: int
) -> None:
    returncode, stderr = ended(tmp_path, 0, signum, 0.1, *SETTINGS, f"--data.data_dir={data_dir}")
    stopped = last(tmp_path, 0)["global_step"]
    assert returncode == status
    assert stderr.endswith(
        "\nStopping after this step; press Ctrl-C again to stop at once.\n"
        f"mnist-amp: stopped by {signum.name} after step {stopped:,}. Its checkpoint is written. "
        "Resume with: mnist-amp fit --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt\n"
    )
    if signum == signal.SIGINT:
        assert_goes_on(tmp_path, 1, whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, data_dir: Path, whole: dict[str, Any], seed: int) -> None:
    delays = random.Random(seed)
    returncode, _ = ended(tmp_path, 0, signal.SIGKILL, delays.uniform(0, 0.3), *SETTINGS, f"--data.data_dir={data_dir}")
    assert returncode == -signal.SIGKILL
    returncode, _ = ended(tmp_path, 1, signal.SIGKILL, delays.uniform(0, 0.3), "--ckpt_path=last")
    assert returncode == -signal.SIGKILL
    assert_goes_on(tmp_path, 2, whole)


def test_killed_within_a_write(tmp_path: Path, data_dir: Path, whole: dict[str, Any]) -> None:
    callback = ("--trainer.callbacks=tests.interrupt.StuckWriting", "--trainer.callbacks.step=25")
    process = Forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", *callback, cwd=tmp_path)
    wait_for(tmp_path / "stuck", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (draft,) = (tmp_path / "lightning_logs/version_0/checkpoints").glob(f".last.{process.pid}.ckpt")
    assert draft.stat().st_size > 100_000  # half of it
    assert last(tmp_path, 0)["global_step"] == 20  # the whole one before it
    os.utime(draft, (0, time.time() - STALE - 1))
    forked("fit", "--ckpt_path=last", "--trainer.callbacks=null", cwd=tmp_path)
    assert_same(tmp_path, 1, whole)
    assert not draft.exists()


@pytest.mark.parametrize(
    ("place", "signums", "said"),
    [
        ("step=3", [signal.SIGINT] * 2, "\nStopping after this step; press Ctrl-C again to stop at once.\n"),
        ("step=null", [signal.SIGINT], ""),  # in the check of the validation, before the first step
        ("step=null", [signal.SIGTERM], ""),
    ],
)
def test_ends_at_once(tmp_path: Path, data_dir: Path, place: str, signums: list[signal.Signals], said: str) -> None:
    callback = ("--trainer.callbacks=tests.interrupt.Signalled", f"--trainer.callbacks.{place}")
    sent = f"--trainer.callbacks.signums={[int(signum) for signum in signums]}"
    done = Forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", *callback, sent, cwd=tmp_path)
    assert done.wait() == 128 + signums[0]
    assert done.stderr == f"{said}mnist-amp: stopped by {signums[0].name} at once.\n"


def test_a_job_that_slurm_requeues(
    tmp_path: Path, data_dir: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1 before the time is up: Lightning saves and asks for the job again, upon which SLURM ends it."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text("#!/bin/sh\necho $@ > scontrol.log\nkill -TERM $PPID\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    arguments = (*SETTINGS, f"--data.data_dir={data_dir}")
    returncode, stderr = ended(tmp_path, 0, signal.SIGUSR1, 0.15, *arguments)
    assert returncode == 143
    assert f"mnist-amp: stopped by SIGTERM after step {last(tmp_path, 0)['global_step']:,};" in stderr
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
    forked("fit", *arguments, cwd=tmp_path)
    assert_same(tmp_path, 1, whole)
    # another job there is another run
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    forked("fit", *arguments, "--trainer.max_steps=3", cwd=tmp_path)
    assert last(tmp_path, 2)["global_step"] == 3


# the command, which is sent a signal as it imports something
IMPORTING = """
import os, sys
name, signum = sys.argv.pop(1), int(sys.argv.pop(1))
class Finder:
    def find_spec(self, found, path, target=None):
        if found == name:
            os.kill(os.getpid(), signum)
sys.meta_path.insert(0, Finder())
from mnist_amp.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("name", "signum"),
    [
        ("yaml", signal.SIGINT),
        ("torch", signal.SIGINT),
        ("lightning.pytorch", signal.SIGINT),
        ("torch", signal.SIGTERM),
    ],
)
def test_ctrl_c_before_anything_runs(tmp_path: Path, name: str, signum: signal.Signals) -> None:
    program = [sys.executable, "-c", IMPORTING, name, str(int(signum)), "fit", "--config=configs/smoke.yaml"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + signum
    assert done.stderr == f"mnist-amp: stopped by {signum.name} at once.\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with nohup, which ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    try:
        stop.install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signum is None
    finally:
        stop.restore()
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_command_with_nothing_to_save_ends_at_once(tmp_path: Path, data_dir: Path, signum: int) -> None:
    arguments = ("--trainer.enable_checkpointing=false", "--trainer.max_epochs=-1", f"--data.data_dir={data_dir}")
    process = Forked("fit", *arguments, cwd=tmp_path)
    while "\nEpoch 0" not in process.stdout:
        assert process.poll() is None, process.stderr
        time.sleep(0.01)
    process.send_signal(signum)
    assert process.wait(timeout=20) == 128 + signum
    assert process.stderr == f"mnist-amp: stopped by {signal.Signals(signum).name} at once.\n"


def test_a_lost_process_is_not_said_in_lightnings_words(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    prepare()
    monkeypatch.setattr(subprocess_script._logger, "handle", said.append)
    monkeypatch.setattr(Observer, "_terminate_all", lambda self: None)
    lost = SimpleNamespace(pid=1, returncode=-9, poll=lambda: -9)
    assert Observer(main_pid=1, child_processes=[lost])._run()  # type: ignore[list-item]
    assert said == []


def test_a_lost_process_ends_the_others(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=ddp-cpu.yaml", f"--data.data_dir={data_dir}", "--checkpoint.every_n_train_steps=10")
    program = [sys.executable, "-m", "mnist_amp", "fit", *arguments]
    process = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith(
        "mnist-amp: error: another process of this run was lost, killed or by an error of its own, so this one has "
        "ended, too. If it has saved a checkpoint, go on with --ckpt_path last. ("
    )


def test_a_mistake_is_said_by_one_process_of_two(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=ddp-cpu.yaml", f"--data.data_dir={data_dir}", "--optimizer.eps=-1")
    program = [sys.executable, "-m", "mnist_amp", "fit", *arguments]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == (
        "mnist-amp: error: the optimizer or its schedule can't be made: Invalid epsilon value: -1.0.\n"
    )
