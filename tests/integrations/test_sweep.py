"""examples/sweep.py with real Optuna and SQLite."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mnist_amp.runs.folders import run_dirs
from tests.conftest import ROOT, command
from tests.integrations.packages import needs
from tests.project.documents import blocks

needs("optuna")
import optuna  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

import sweep  # noqa: E402
import sweep_files  # noqa: E402

PROGRAM = str(ROOT / "examples" / "sweep.py")
HERE = Path(__file__).parent

Sweep = Callable[..., str]


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """Run a sweep over `optimizer.lr` in this process, with fake_fit.py; return what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "FIT", (sys.executable, str(HERE / "fake_fit.py")))
    monkeypatch.setattr(sweep, "POLL", 0.05)

    def swept(*args: str, lr: str = "{choices: [0.125]}") -> str:
        Path("space.yaml").write_text(f"optimizer.lr: {lr}\ntrainer.max_epochs: 2\n")
        capsys.readouterr()
        sweep.main(["--space=space.yaml", *args])
        return capsys.readouterr().out

    return swept


def study(folder: Path) -> Any:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/sweep.db")


def states(folder: Path) -> list[TrialState]:
    return [trial.state for trial in study(folder).trials]


def add_trial(folder: Path, lr: float, **settings: Any) -> None:
    """Record a trial of the space of `swept`."""
    known = study(folder)
    distributions = known.trials[0].distributions
    known.add_trial(optuna.create_trial(params={"optimizer.lr": lr}, distributions=distributions, **settings))


def error_of(swept: Sweep, *args: str, lr: str = "{choices: [0.125]}") -> str:
    with pytest.raises(SystemExit) as exit_info:
        swept(*args, lr=lr)
    return str(exit_info.value.code)


class TestKilled:
    """A sweep of 12 trials with the real fit: two processes at once, killed three times at random with SIGKILL."""

    OPTIONS = ("--space=space.yaml", "--trials=12", "--grace=6", "--prune_after=12", "--config=smoke.yaml")
    SPACE = """
network: slow_net.SlowNet
network.width: {low: 4, high: 64, step: 4}
optimizer: {choices: [Adam, {class_path: SGD, init_args: {momentum: 0.9}}]}
optimizer.lr: {low: 1e-3, high: 1e-1, log: true}
checkpoint.every_n_train_steps: 3
trainer.max_epochs: 2
"""

    def test_nothing_is_lost(self, tmp_path: Path, data_dir: Path) -> None:
        seed = random.randrange(2**16)
        print(f"seed of the kills: {seed}")
        self.chance, self.folder = random.Random(seed), tmp_path / "sweep"
        self.env = {"MNIST_AMP_DATA__DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}
        shutil.copy(HERE / "slow_net.py", tmp_path)
        (tmp_path / "space.yaml").write_text(self.SPACE)
        processes = [self.start()]
        try:
            # the first time in the middle of a training, or all three might hit the start of one
            self.wait_until(lambda: any(self.folder.glob("trial_0/*/version_0/checkpoints/last.ckpt")), processes)
            self.kill(processes[0], with_its_fit=True)
            processes = [self.start(), self.start()]
            for finished in sorted(self.chance.sample(range(10), 2)):
                self.wait_until(partial(self.has_finished, finished), processes)
                time.sleep(self.chance.uniform(0, 3))
                victim = self.chance.randrange(2)
                self.kill(processes[victim], with_its_fit=self.chance.random() < 0.5)
                processes[victim] = self.start()
            printed = [process.communicate(timeout=1800)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], printed
        assert all("\nbest    trial " in text for text in printed)
        self.check_trials()
        self.check_metrics()

    def start(self) -> subprocess.Popen[str]:
        arguments = [sys.executable, PROGRAM, *self.OPTIONS]
        return subprocess.Popen(
            arguments, cwd=self.folder.parent, env={**os.environ, **self.env}, stdout=subprocess.PIPE, text=True
        )

    def wait_until(self, reached: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> None:
        while not reached():
            assert [process.poll() for process in processes] == [None] * len(processes)
            time.sleep(0.1)

    def has_finished(self, least: int) -> bool:
        return states(self.folder).count(TrialState.COMPLETE) >= least

    def kill(self, process: subprocess.Popen[str], *, with_its_fit: bool) -> None:
        if with_its_fit and sys.platform == "linux":
            process.send_signal(signal.SIGSTOP)  # or it would see that its fit has been killed
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        process.kill()
        process.wait()

    def check_trials(self) -> None:
        """Check that 12 different trials are complete, each trained to its end once, and that the first was resumed."""
        trials = study(self.folder).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
        assert len({str(trial.params) for trial in trials}) == 12
        runs = [list(run_dirs(self.folder / f"trial_{number}")) for number in range(12)]
        print(f"runs of each trial: {[len(those) for those in runs]}")
        assert [sum(map(self.was_trained, those)) for those in runs] == [1] * 12
        assert len(runs[0]) > 1

    def was_trained(self, run: Path) -> bool:
        """Return whether a run has an accuracy after the second and last epoch."""
        metrics = run / "metrics.csv"
        rows = csv.DictReader(metrics.read_text().splitlines()) if metrics.is_file() else ()
        return any(row["epoch"] == "1" and row.get("val_accuracy") for row in rows)

    def check_metrics(self) -> None:
        """Check that best.yaml, and the settings of the trial that was interrupted, give the same metrics again."""
        known = study(self.folder)
        for trial, name in ((known.best_trial, "best"), (known.trials[0], "interrupted")):
            run = next(run_dirs(self.folder / f"trial_{trial.number}"))
            config = self.folder / "best.yaml" if name == "best" else run / "config.yaml"
            again = self.folder.parent / name
            arguments = ("fit", f"--config={config}", f"--trainer.default_root_dir={again}")
            command(*arguments, cwd=self.folder.parent, env=self.env)
            repeated = again / "lightning_logs" / "version_0"
            assert (repeated / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
            rows = csv.DictReader((repeated / "metrics.csv").read_text().splitlines())
            assert max(float(row["val_accuracy"]) for row in rows if row["val_accuracy"]) == trial.value


def test_ctrl_c_is_continued(tmp_path: Path, data_dir: Path) -> None:
    """The real fit saves a checkpoint; the same command resumes the trial with it."""
    shutil.copy(HERE / "slow_net.py", tmp_path)
    (tmp_path / "space.yaml").write_text("network: slow_net.SlowNet\nnetwork.width: {choices: [8]}\n")
    arguments = [sys.executable, PROGRAM, "--space=space.yaml", "--trials=1", "--grace=1", "--config=smoke.yaml"]
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir), "MNIST_AMP_TRAINER__MAX_EPOCHS": "5"}
    with subprocess.Popen(arguments, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("sweep/trial_0/lightning_logs/version_0/checkpoints/last.ckpt")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=600)[1] == "sweep: stopped. The same command continues it.\n"
        assert process.returncode == 1
    log = (tmp_path / "sweep" / "trial_0" / "fit.log").read_text()
    assert "Its checkpoint is written. Resume with: mnist-amp fit" in log
    done = subprocess.run(arguments, cwd=tmp_path, env=env, check=True, capture_output=True, text=True, timeout=600)
    (trial,) = study(tmp_path / "sweep").trials
    assert (tmp_path / "sweep/trial_0/lightning_logs/version_1/model.pth").is_file()
    assert trial.state == TrialState.COMPLETE
    assert trial.intermediate_values.keys() == set(range(5))
    assert "\nbest    trial 0: val_accuracy " in done.stdout


def test_the_end_of_a_sweep(swept: Sweep, tmp_path: Path) -> None:
    lr = "{low: 1e-1, high: 2e-1}"
    printed = swept("--trials=4", lr=lr)
    trials = study(tmp_path / "sweep").trials
    best, second = sorted(trials, key=lambda trial: -trial.value)[:2]
    assert printed.endswith(
        f"best    trial {best.number}: val_accuracy {best.value:.6g} with {best.params}\n"
        f"note    trial {second.number} has {second.value:.6g}. Chance? --seeds 3 shows it.\n"
        "next    mnist-amp fit --config sweep/best.yaml\n"
    )
    config = f"seed_everything: 42\ntrainer: {{}}\nlr: {best.params['optimizer.lr']}\n"
    assert Path("sweep/best.yaml").read_text() == config
    assert swept("--trials=4", lr=lr) == printed[printed.index("best    ") :]
    assert len(study(tmp_path / "sweep").trials) == 4


@pytest.mark.parametrize(("difference", "verdict"), [(0.25, "is second"), (0.0625, "can't be distinguished from it")])
def test_seeds(swept: Sweep, tmp_path: Path, difference: float, verdict: str) -> None:
    """The accuracies of a trial are 2 lr, and 0.125 and 0.25 more."""
    swept("--trials=1", "--seeds=3")
    add_trial(tmp_path / "sweep", 0.125, value=0.375 - difference, user_attrs={"values": [0.0, 0.125, 0.25]})
    assert swept("--trials=2", "--seeds=3") == (
        "best    trial 0: val_accuracy 0.375 with {'optimizer.lr': 0.125}\n"
        f"note    trial 1 {verdict}: {0.375 - difference:.6g}; spread over seeds 0.12\n"
        "next    mnist-amp fit --config sweep/best.yaml\n"
    )
    first = study(tmp_path / "sweep").trials[0]
    assert (first.value, first.user_attrs["values"]) == (0.375, [0.25, 0.375, 0.5])
    assert first.intermediate_values == {0: 0.125, 1: 0.25}  # of the first seed
    assert sorted(path.name for path in Path("sweep/trial_0").iterdir()) == ["seed_42", "seed_43", "seed_44"]


def test_other_modes(swept: Sweep, tmp_path: Path) -> None:
    """The training loss is 1, and then 0."""
    swept("--trials=1", "--metric=train_loss", "--mode=minimize", "--trainer.max_epochs=2")
    assert [trial.value for trial in study(tmp_path / "sweep").trials] == [0.0]


def test_a_trial_is_pruned(swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five others were better after the first epoch. The second one would take a minute."""
    swept("--trials=1")
    for _ in range(5):
        add_trial(tmp_path / "sweep", 0.125, value=0.2, intermediate_values={0: 0.9, 1: 0.9})
    monkeypatch.setenv("WAIT", "60")
    assert swept("--trials=7").startswith("trial 6 pruned: worse than the median with {'optimizer.lr': 0.125}\n")
    assert study(tmp_path / "sweep").trials[6].intermediate_values == {0: 0.125}


def test_failed_trials(swept: Sweep, tmp_path: Path) -> None:
    """They do not count; after three the sweep ends."""
    swept("--trials=1")
    add_trial(tmp_path / "sweep", 0.125, state=TrialState.FAIL)
    swept("--trials=2")
    assert states(tmp_path / "sweep") == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    message = "sweep: error: three trials failed one after another, for the reasons above."
    assert error_of(swept, "--folder=bad", lr="{choices: [2.0, 3.0]}") == message
    failed = study(tmp_path / "bad").trials
    assert [trial.state for trial in failed] == [TrialState.FAIL] * 3
    assert failed[0].user_attrs["result"].startswith("mnist-amp: error: the loss is not finite. with {'optimizer.lr': ")


@pytest.mark.parametrize(
    ("killed", "runs"), [("after the fit", 1), ("at the end of the fit", 2), ("before the fit", 1)]
)
def test_what_a_killed_sweep_left(swept: Sweep, tmp_path: Path, killed: str, runs: int) -> None:
    """The metrics of a fit that has ended are used. A fit that can't be resumed is repeated."""
    swept("--trials=1")
    if killed == "before the fit":
        study(tmp_path / "sweep").ask()  # a trial without settings
    else:
        add_trial(tmp_path / "sweep", 0.125, state=TrialState.RUNNING, user_attrs={"alive": time.time() - 61})
        shutil.copytree("sweep/trial_0", "sweep/trial_1")
    if killed == "at the end of the fit":
        Path("sweep/trial_1/lightning_logs/version_0/model.pth").unlink()
    swept("--trials=2")
    trial = study(tmp_path / "sweep").trials[1]
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, 0.25, {"optimizer.lr": 0.125})
    assert len(list(run_dirs(Path("sweep/trial_1")))) == runs


def test_a_trial_of_a_living_process_is_left_alone(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept("--trials=1")
    add_trial(
        tmp_path / "sweep",
        0.125,
        state=TrialState.RUNNING,
        user_attrs={"alive": time.time(), "result": "", "values": []},
    )

    def finish(_: float) -> None:
        study(tmp_path / "sweep").tell(1, 0.125)

    monkeypatch.setattr(time, "sleep", finish)  # as the other process does
    assert swept("--trials=2").startswith("best    trial 0: ")
    assert states(tmp_path / "sweep") == [TrialState.COMPLETE] * 2


class TestMistakes:
    def test_a_setting_that_fit_does_not_have(self, tmp_path: Path) -> None:
        """The message is that of the real fit."""
        (tmp_path / "space.yaml").write_text("optimizer.lrr: {low: 1e-3, high: 1e-1, log: true}\n")
        arguments = [sys.executable, PROGRAM, "--space=space.yaml", "--config=smoke.yaml"]
        done = subprocess.run(arguments, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=600)
        assert done.returncode == 1
        assert done.stderr.startswith(
            "sweep: error: mnist-amp: error: optimizer: Adam takes no lrr (did you mean lr?); "
        )
        assert done.stderr.count("\n") == 1

    def test_a_refused_first_trial_is_forgotten(self, swept: Sweep, tmp_path: Path) -> None:
        """The corrected command runs without any clean-up."""
        message = "sweep: error: mnist-amp: error: the rate is negative."
        assert error_of(swept, lr="{choices: [-1]}") == message
        assert swept("--trials=1").startswith("trial 0 complete: val_accuracy 0.25 with {'optimizer.lr': 0.125}\n")
        assert states(tmp_path / "sweep") == [TrialState.COMPLETE]

    def test_another_process_is_refused_later(self, swept: Sweep, tmp_path: Path) -> None:
        """The last one of them forgets the trials."""
        Path("sweep").mkdir()
        url = "sqlite:///sweep/sweep.db"
        other = optuna.create_study(study_name="sweep", storage=url, direction="maximize")
        other.ask().set_user_attr("alive", time.time())
        message = "sweep: error: mnist-amp: error: the rate is negative."
        assert error_of(swept, lr="{choices: [-1]}") == message
        assert states(tmp_path / "sweep") == [TrialState.RUNNING, TrialState.FAIL]
        other.tell(0, state=TrialState.FAIL)
        assert error_of(swept, lr="{choices: [-1]}") == message
        assert optuna.get_all_study_names(url) == []
        assert not list(Path("sweep").glob("trial_*"))

    def test_a_metric_that_fit_does_not_log(self, swept: Sweep, tmp_path: Path) -> None:
        """It costs one training; the corrected command starts again."""
        message = "sweep: error: fit logged no val_acc. Use a --metric that it logged: train_loss, val_accuracy."
        assert error_of(swept, "--metric=val_acc") == message
        assert not Path("sweep/trial_0").exists()
        swept("--trials=1", lr="{choices: [0.25]}")
        assert [trial.value for trial in study(tmp_path / "sweep").trials] == [0.5]
        assert len(list(run_dirs(Path("sweep/trial_0")))) == 1

    def test_an_unexpected_error_keeps_its_traceback(self, swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweep, "read_metric", lambda root, metric: {}[metric])
        with pytest.raises(KeyError, match="val_accuracy"):
            swept()

    def test_another_sweep_in_the_folder(self, swept: Sweep) -> None:
        swept("--trials=1")
        message = "sweep: error: sweep has another sweep. Repeat its command, or use another --folder."
        assert error_of(swept, lr="{choices: [0.5]}") == message
        assert error_of(swept, "--seeds=2") == message

    def test_a_storage_that_can_not_be_used(self, swept: Sweep) -> None:
        for url in ("postgresql://me:secret@127.0.0.1:1/sweeps", "sqlite:////no/folder/sweep.db"):
            message = error_of(swept, f"--storage={url}")
            assert message.startswith("sweep: error: ")
            assert "\n" not in message
            assert "secret" not in message

    @pytest.mark.parametrize("lr", ["{choices: []}", "{low: 1e-3}", "{low: 2, high: 1}", "{low: x, high: y}"])
    def test_a_range(self, swept: Sweep, lr: str) -> None:
        message = error_of(swept, lr=lr)
        assert message.startswith("sweep: error: space.yaml: optimizer.lr: ")
        assert "\n" not in message
        assert not Path("sweep").exists()


def test_the_order_and_the_form_of_options(tmp_path: Path) -> None:
    """Names of classes come first, because the parser drops settings of a class when another one is named."""
    space = tmp_path / "full.yaml"
    space.write_text(
        "network.width: {low: 16, high: 64, step: 16}\nnetwork: my.Net\n"
        "optimizer: {choices: [{class_path: SGD}]}\noptimizer.lr: {low: 1e-4, high: 1, log: true}\n"
        "data.mean: [0.5, 0.5]\ncompile: true\nlr_scheduler: null\n"
    )
    trial = optuna.create_study().ask()
    assert sweep_files.draw(trial, space, ["--data.seed", "3", "--compile=false"]) == [
        *("--data.seed", "3", "--compile=false"),
        *("--network=my.Net", '--optimizer={"class_path": "SGD"}', "--lr_scheduler=null"),
        f"--network.width={trial.params['network.width']}",
        f"--optimizer.lr={trial.params['optimizer.lr']}",
        "--data.mean=[0.5, 0.5]",
    ]
    assert trial.distributions["network.width"] == optuna.distributions.IntDistribution(16, 64, step=16)
    assert trial.distributions["optimizer.lr"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)


def test_it_is_short() -> None:
    assert len(Path(PROGRAM).read_text(encoding="utf-8").splitlines()) <= 170


def test_the_documented_space() -> None:
    """It is that of the file, without the comments."""
    lines = (ROOT / "examples" / "sweep.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    assert blocks("docs/sweeps.md", "yaml")[0][1] == "".join(line for line in lines if not line.startswith("#"))
