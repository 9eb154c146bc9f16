"""examples/sweep.py with real Optuna and SQLite."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, command
from tests.integrations.packages import needs
from tests.project.documents import commands

needs("optuna")
import optuna
from optuna.trial import TrialState

import sweep

PROGRAM = str(ROOT / "examples" / "sweep.py")
# a network of the user, in which a step takes long enough to be killed
SLOW_NET = """
import time
from torch import Tensor, nn

class SlowNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(0.1)
        return self.layers(images)
"""
# instead of `mnist-amp fit`, in an instant: the accuracy of each epoch is `optimizer.lr` times the epoch plus the seed
FAKE_FIT = """
import pathlib, sys, time
options = dict(option[2:].split("=", 1) for option in sys.argv[1:] if "=" in option)
lr, seed = float(options["optimizer.lr"]), int(options.get("seed_everything", 42))
logs = pathlib.Path(options["trainer.default_root_dir"], "lightning_logs")
run = logs / f"version_{len(list(logs.glob('*')))}"
(run / "checkpoints").mkdir(parents=True)
(run / "config.yaml").write_text(f"# lightning\\nseed_everything: {seed}\\ntrainer:\\n  default_root_dir: {logs}\\nlr: {lr}\\n")
epochs = int(options["trainer.max_epochs"])
if lr > 1 and epochs > 1:
    sys.exit("mnist-amp: error: the loss is not finite.")
with (run / "metrics.csv").open("w", buffering=1) as metrics:
    metrics.write("epoch,step,train_loss,val_accuracy\\n")
    for epoch in range(epochs):
        metrics.write(f"{epoch},{epoch},,{lr * (epoch + 1) + (seed - 42) / 8}\\n{epoch},{epoch},{1 - epoch},\\n")
        (run / "checkpoints" / "last.ckpt").touch()
        time.sleep(float(options.get("data.wait", 0)))
(run / "model.pth").touch()
"""

Sweep = Callable[..., str]


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Sweep]:
    """Run a sweep over `optimizer.lr` in this process, with FAKE_FIT; return what it prints."""
    monkeypatch.chdir(tmp_path)
    Path("fake_fit.py").write_text(FAKE_FIT)
    monkeypatch.setattr(sweep, "FIT", (sys.executable, "fake_fit.py"))
    monkeypatch.setattr(sweep, "POLL", 0.05)

    def swept(*args: str, lr: str = "{choices: [0.125]}") -> str:
        Path("space.yaml").write_text(f"optimizer.lr: {lr}\ntrainer.max_epochs: 2\n")
        capsys.readouterr()
        sweep.main(["--space=space.yaml", *args])
        return capsys.readouterr().out

    before = signal.getsignal(signal.SIGTERM)
    yield swept
    signal.signal(signal.SIGTERM, before)


def study(folder: Path) -> Any:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/sweep.db")


def states(folder: Path) -> list[TrialState]:
    return [trial.state for trial in study(folder).trials]


def error_of(swept: Sweep, *args: str, lr: str = "{choices: [0.125]}") -> str:
    with pytest.raises(SystemExit) as exit_info:
        swept(*args, lr=lr)
    return str(exit_info.value.code)


class TestKilled:
    """A sweep of 12 trials with the real fit: two processes at once, killed three times at random."""

    OPTIONS = ("--space=space.yaml", "--trials=12", "--grace=4", "--pruner=NopPruner", "--config=smoke.yaml")
    SPACE = """
network: slow_net.SlowNet
network.width: {low: 4, high: 64, step: 4}
optimizer: {choices: [Adam, {class_path: SGD, init_args: {momentum: 0.9}}]}
optimizer.lr: {low: 1e-3, high: 1e-1, log: true}
checkpoint.every_n_train_steps: 3
trainer.max_epochs: 3
"""

    def test_nothing_is_lost(self, tmp_path: Path, data_dir: Path) -> None:
        seed = random.randrange(2**16)
        print(f"seed of the kills: {seed}")
        self.chance, self.folder = random.Random(seed), tmp_path / "sweep"
        self.env = {"MNIST_AMP_DATA__DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}
        (tmp_path / "slow_net.py").write_text(SLOW_NET)
        (tmp_path / "space.yaml").write_text(self.SPACE)
        processes = [self.start(), self.start()]
        try:
            for finished in sorted(self.chance.sample(range(10), 3)):
                self.wait_for(finished, processes)
                time.sleep(self.chance.uniform(0, 5))
                victim = self.chance.randrange(2)
                self.kill(processes[victim], with_its_fit=self.chance.random() < 0.5)
                processes[victim] = self.start()
            printed = [process.communicate(timeout=900)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], printed
        assert all("trials  12 complete, 0 pruned, 0 fail\n" in text for text in printed)
        self.check_trials()
        self.check_best()

    def start(self) -> subprocess.Popen[str]:
        arguments = [sys.executable, PROGRAM, *self.OPTIONS]
        return subprocess.Popen(
            arguments, cwd=self.folder.parent, env={**os.environ, **self.env}, stdout=subprocess.PIPE, text=True
        )

    def wait_for(self, finished: int, processes: list[subprocess.Popen[str]]) -> None:
        database = self.folder / "sweep.db"
        while not (database.exists() and (begun := self.begun()) is not None and begun >= finished):
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.3)

    def begun(self) -> int | None:
        try:
            return states(self.folder).count(TrialState.COMPLETE)
        except Exception:  # the study is not there yet
            return None

    def kill(self, process: subprocess.Popen[str], *, with_its_fit: bool) -> None:
        if with_its_fit and sys.platform == "linux":
            process.send_signal(signal.SIGSTOP)  # or it would see that its fit has been killed
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        process.kill()
        process.wait()

    def check_trials(self) -> None:
        """Check that 12 trials are complete, that each was trained to its end once, and that no two are the same."""
        trials = study(self.folder).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
        assert len({json.dumps(trial.params, sort_keys=True) for trial in trials}) == 12
        ended = [len(list(self.folder.glob(f"trial_{n}/lightning_logs/*/model.pth"))) for n in range(12)]
        assert ended == [1] * 12
        runs = [len(list(self.folder.glob(f"trial_{n}/lightning_logs/version_*"))) for n in range(12)]
        print(f"runs of each trial: {runs}")

    def check_best(self) -> None:
        """Check that best.yaml, and the settings of a trial that was interrupted, give the same metrics again."""
        trials = study(self.folder).trials
        best = max(trials, key=lambda trial: trial.value)
        assert (self.folder / "best.yaml").read_text().startswith(f"# trial {best.number} of sweep: val_accuracy ")
        interrupted = [trial for trial in trials if not trial.user_attrs["runs"][0].endswith("version_0")]
        for trial in (best, *interrupted[:1]):
            run = self.folder / trial.user_attrs["runs"][0]
            config = self.folder / "best.yaml" if trial is best else run / "config.yaml"
            again = self.folder.parent / f"again_{trial.number}"
            arguments = ("fit", f"--config={config}", f"--trainer.default_root_dir={again}")
            command(*arguments, cwd=self.folder.parent, env=self.env)
            repeated = again / "lightning_logs" / "version_0"
            assert (repeated / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
            assert sweep.value_of(repeated, "val_accuracy") == trial.value


