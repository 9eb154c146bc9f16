"""Runs in their own processes, stopped by signals; resumed, they end as an uninterrupted run does."""

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
from tests.conftest import THEIRS, WITH_TESTS, filled, forked
from tests.forked import Forked
from tests.runs.test_exact import KEPT
from tests.runs.test_resume import flat

SETTINGS = (
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=300", "--trainer.max_epochs=3"),
    *("--checkpoint.every_n_train_steps=10", "--trainer.log_every_n_steps=7"),
)


SLOWLY = "--trainer.callbacks=tests.interrupt.Slowly"


def last(folder: Path, version: int) -> dict[str, Any]:
    return checkpoint_files.read(folder / f"lightning_logs/version_{version}/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, Any]:
    """Return the last checkpoint of an uninterrupted run, and its metrics.csv."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", cwd=folder, env={"MNIST_AMP_TRAINER__ACCELERATOR": "cpu"})
    return {**last(folder, 0), "metrics.csv": (folder / "lightning_logs/version_0/metrics.csv").read_text()}


def fit_until_signal(folder: Path, version: int, signum: int, delay: float, *args: str) -> tuple[int, str]:
    """Start a fit and send it a signal `delay` seconds after its first checkpoint; return exit status and stderr."""
    process = Forked("fit", *args, SLOWLY, cwd=folder)
    wait_for(folder / f"lightning_logs/version_{version}/checkpoints/last.ckpt", process)
    time.sleep(delay)
    process.send_signal(signum)
    return process.wait(), process.stderr


def wait_for(path: Path, process: Forked | subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def assert_resumes_to(folder: Path, version: int, uninterrupted: dict[str, Any]) -> None:
    forked("fit", "--ckpt_path=last", "--trainer.callbacks=null", cwd=folder)
    assert_same(folder, version, uninterrupted)


def assert_same(folder: Path, version: int, uninterrupted: dict[str, Any]) -> None:
    found = last(folder, version)
    for key in KEPT:
        assert flat(found.get(key)) == flat(uninterrupted.get(key)), key
    rows = (folder / f"lightning_logs/version_{version}/metrics.csv").read_text()
    assert rows == uninterrupted["metrics.csv"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_stops_between_two_steps(
    tmp_path: Path, data_dir: Path, uninterrupted: dict[str, Any], signum: signal.Signals
) -> None:
    returncode, stderr = fit_until_signal(tmp_path, 0, signum, 0.1, *SETTINGS, f"--data.data_dir={data_dir}")
    stopped = last(tmp_path, 0)["global_step"]
    assert returncode == 128 + signum
    assert stderr.endswith(
        "\nStopping after this step; press Ctrl-C again to stop at once.\n"
        f"mnist-amp: stopped by {signum.name} after step {stopped:,}. Its checkpoint is written. "
        "Resume with: mnist-amp fit --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt\n"
    )
    if signum == signal.SIGINT:
        assert_resumes_to(tmp_path, 1, uninterrupted)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, data_dir: Path, uninterrupted: dict[str, Any], seed: int) -> None:
    delays = random.Random(seed)
    returncode, _ = fit_until_signal(
        tmp_path, 0, signal.SIGKILL, delays.uniform(0, 0.3), *SETTINGS, f"--data.data_dir={data_dir}"
    )
    assert returncode == -signal.SIGKILL
    returncode, _ = fit_until_signal(tmp_path, 1, signal.SIGKILL, delays.uniform(0, 0.3), "--ckpt_path=last")
    assert returncode == -signal.SIGKILL
    assert_resumes_to(tmp_path, 2, uninterrupted)


def test_killed_while_it_writes_a_checkpoint(tmp_path: Path, data_dir: Path, uninterrupted: dict[str, Any]) -> None:
    callback = ("--trainer.callbacks=tests.interrupt.StuckWriting", "--trainer.callbacks.step=25")
    process = Forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", *callback, cwd=tmp_path)
    wait_for(tmp_path / "stuck", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (temporary,) = (tmp_path / "lightning_logs/version_0/checkpoints").glob(f".last.{process.pid}.ckpt")
    assert temporary.stat().st_size > 100_000  # half of the file
    assert last(tmp_path, 0)["global_step"] == 20  # the last complete checkpoint
    os.utime(temporary, (0, time.time() - STALE - 1))
    forked("fit", "--ckpt_path=last", "--trainer.callbacks=null", cwd=tmp_path)
    assert_same(tmp_path, 1, uninterrupted)
    assert not temporary.exists()


@pytest.mark.parametrize(
    ("setting", "signums", "printed"),
    [
        ("step=3", [signal.SIGINT] * 2, "\nStopping after this step; press Ctrl-C again to stop at once.\n"),
        ("step=null", [signal.SIGINT], ""),  # in the sanity check, before the first step
        ("step=null", [signal.SIGTERM], ""),
    ],
)
def test_ends_at_once(
    tmp_path: Path, data_dir: Path, setting: str, signums: list[signal.Signals], printed: str
) -> None:
    callback = ("--trainer.callbacks=tests.interrupt.Signalled", f"--trainer.callbacks.{setting}")
    sent = f"--trainer.callbacks.signums={[int(signum) for signum in signums]}"
    done = Forked("fit", *SETTINGS, f"--data.data_dir={data_dir}", *callback, sent, cwd=tmp_path)
    assert done.wait() == 128 + signums[0]
    assert done.stderr == f"{printed}mnist-amp: stopped by {signums[0].name} at once.\n"


def test_the_metrics_are_printed_if_the_drawing_is_interrupted(tmp_path: Path, data_dir: Path) -> None:
    callback = "--trainer.callbacks=tests.interrupt.SignalledWhileDrawing"
    done = Forked("fit", "--config=configs/smoke.yaml", f"--data.data_dir={data_dir}", callback, cwd=tmp_path)
    assert done.wait() == 128 + signal.SIGINT
    assert done.stderr == "mnist-amp: stopped by SIGINT at once.\n"
    accuracy, time_taken = done.stdout.splitlines()[-2:]
    assert accuracy.endswith(" on the validation images (best checkpoint, after 1 epoch)")
    assert time_taken.startswith("time      ")
    assert {path.name for path in (tmp_path / "lightning_logs/version_0").glob("*.p*")} == {"model.pth"}


def test_a_job_that_slurm_requeues(
    tmp_path: Path, data_dir: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1 comes before the time is up. Lightning saves and requeues the job, and then SLURM ends it."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text("#!/bin/sh\necho $@ > scontrol.log\nkill -TERM $PPID\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    arguments = (*SETTINGS, f"--data.data_dir={data_dir}")
    returncode, stderr = fit_until_signal(tmp_path, 0, signal.SIGUSR1, 0.15, *arguments)
    assert returncode == 143
    assert (
        f"mnist-amp: stopped by SIGTERM after step {last(tmp_path, 0)['global_step']:,}. Its checkpoint is written."
        in stderr
    )
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
    forked("fit", *arguments, "--trainer.callbacks=null", cwd=tmp_path)
    assert_same(tmp_path, 1, uninterrupted)
    # another job in the same folder starts from scratch
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    forked("fit", *arguments, "--trainer.max_steps=3", cwd=tmp_path)
    assert last(tmp_path, 2)["global_step"] == 3


# runs the command, and sends it a signal as it imports a package
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
def test_a_signal_during_the_imports(tmp_path: Path, name: str, signum: signal.Signals) -> None:
    program = [sys.executable, "-c", IMPORTING, name, str(int(signum)), "fit", "--config=configs/smoke.yaml"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + signum
    assert done.stderr == f"mnist-amp: stopped by {signum.name} at once.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP, under nohup."""
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
    assert process.wait() == 128 + signum
    assert process.stderr == f"mnist-amp: stopped by {signal.Signals(signum).name} at once.\n"


def test_a_lost_process_is_not_reported_by_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    prepare()
    monkeypatch.setattr(subprocess_script._logger, "handle", logged.append)
    monkeypatch.setattr(Observer, "_terminate_all", lambda self: None)
    lost = SimpleNamespace(pid=1, returncode=-9, poll=lambda: -9)
    assert Observer(main_pid=1, child_processes=[lost])._run()  # type: ignore[list-item]
    assert logged == []


def test_a_lost_process_ends_the_others(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=ddp-cpu.yaml", f"--data.data_dir={data_dir}", "--checkpoint.every_n_train_steps=10")
    program = [sys.executable, "-m", "mnist_amp", "fit", *arguments, "--trainer.callbacks=tests.interrupt.ProcessIds"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(program, cwd=tmp_path, env={**os.environ, **WITH_TESTS}, **pipes)
    wait_for(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", process)
    os.kill(int((tmp_path / "pid_1").read_text()), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert stderr.startswith(
        "mnist-amp: error: another process of this run was killed or failed, so this one has ended. If the run has "
        "saved a checkpoint, this resumes it, in as many processes or in another number: "
        "mnist-amp fit --ckpt_path last ("
    )


def test_an_error_is_reported_by_one_process_of_two(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=ddp-cpu.yaml", f"--data.data_dir={data_dir}", "--optimizer.eps=-1")
    program = [sys.executable, "-m", "mnist_amp", "fit", *arguments]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == filled(
        f"mnist-amp: error: the optimizer or its schedule can't be made: {THEIRS}.\n", done.stderr
    )
