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
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, command
from tests.integrations.packages import needs
from tests.project.documents import blocks

needs("optuna")
import optuna  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

import sweep  # noqa: E402

PROGRAM = str(ROOT / "examples" / "sweep.py")
HERE = Path(__file__).parent

Sweep = Callable[..., str]


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Sweep]:
    """Run a sweep over `optimizer.lr` in this process, with fake_fit.py; return what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "FIT", (sys.executable, str(HERE / "fake_fit.py")))
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

    OPTIONS = ("--space=space.yaml", "--trials=12", "--grace=10", "--pruner=NopPruner", "--config=smoke.yaml")
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
        """Check that 12 trials are complete, that each was trained to its end once, and that no two are the same."""
        trials = study(self.folder).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
        assert len({json.dumps(trial.params, sort_keys=True) for trial in trials}) == 12
        ended = [len(list(self.folder.glob(f"trial_{n}/lightning_logs/*/model.pth"))) for n in range(12)]
        assert ended == [1] * 12
        runs = [len(list(self.folder.glob(f"trial_{n}/lightning_logs/version_*"))) for n in range(12)]
        print(f"runs of each trial: {runs}")
        assert runs[0] > 1

    def check_metrics(self) -> None:
        """Check that best.yaml, and the settings of the trial that was interrupted, give the same metrics again."""
        interrupted, *_ = trials = study(self.folder).trials
        best = max(trials, key=lambda trial: trial.value)
        assert (self.folder / "best.yaml").read_text().startswith(f"# trial {best.number} of sweep: val_accuracy ")
        for trial, name in ((best, "best"), (interrupted, "interrupted")):
            run = self.folder / trial.user_attrs["runs"][0]
            config = self.folder / "best.yaml" if name == "best" else run / "config.yaml"
            again = self.folder.parent / name
            arguments = ("fit", f"--config={config}", f"--trainer.default_root_dir={again}")
            command(*arguments, cwd=self.folder.parent, env=self.env)
            repeated = again / "lightning_logs" / "version_0"
            assert (repeated / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
            assert sweep.value_of(repeated, "val_accuracy") == trial.value


def test_ctrl_c_is_continued_without_waiting(tmp_path: Path, data_dir: Path) -> None:
    """The real fit saves a checkpoint; the same command continues the trial with it, within the time of grace."""
    shutil.copy(HERE / "slow_net.py", tmp_path)
    (tmp_path / "space.yaml").write_text("network: slow_net.SlowNet\nnetwork.width: {choices: [8]}\n")
    arguments = [sys.executable, PROGRAM, "--space=space.yaml", "--trials=1", "--grace=3600", "--config=smoke.yaml"]
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir), "MNIST_AMP_TRAINER__MAX_EPOCHS": "5"}
    with subprocess.Popen(arguments, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("sweep/trial_0/lightning_logs/version_0/checkpoints/last.ckpt")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120)[1] == "sweep: stopped. The same command continues it.\n"
        assert process.returncode == 130
    log = (tmp_path / "sweep" / "trial_0" / "fit.log").read_text()
    assert "Its checkpoint is written. Resume with: mnist-amp fit" in log
    done = subprocess.run(arguments, cwd=tmp_path, env=env, check=True, capture_output=True, text=True, timeout=300)
    (trial,) = study(tmp_path / "sweep").trials
    assert trial.user_attrs["runs"] == ["trial_0/lightning_logs/version_1"]
    assert trial.state == TrialState.COMPLETE
    assert trial.intermediate_values.keys() == set(range(5))
    assert "next    mnist-amp fit --config sweep/best.yaml\n" in done.stdout


def test_each_choice_is_tried_once(swept: Sweep, tmp_path: Path) -> None:
    printed = swept("--trials=4", lr="{choices: [0.125, 0.25, 0.375, 0.5]}")
    assert sorted(trial.params["optimizer.lr"] for trial in study(tmp_path / "sweep").trials) == [
        0.125,
        0.25,
        0.375,
        0.5,
    ]
    best, second = sorted(study(tmp_path / "sweep").trials, key=lambda trial: -trial.value)[:2]
    assert printed.endswith(
        "trials  4 complete, 0 pruned, 0 fail\n"
        f"best    trial {best.number}: val_accuracy 1 with optimizer.lr 0.5\n"
        f"note    trials {best.number} and {second.number} differ by 0.25. One seed does not show whether that is "
        "chance; --seeds 3 does.\n"
        "next    mnist-amp fit --config sweep/best.yaml\n"
    )
    assert Path("sweep/best.yaml").read_text() == (
        f"# trial {best.number} of sweep: val_accuracy 1.0\n# made by a test\nseed_everything: 42\ntrainer:\nlr: 0.5\n"
    )
    assert swept("--trials=4", lr="{choices: [0.125, 0.25, 0.375, 0.5]}") == printed[printed.index("trials  4") :]


@pytest.mark.parametrize(
    ("second_lr", "note"),
    [
        (0.25, "differ by 0.25, more than the spread over 3 seeds (standard deviation 0.12).\n"),
        (
            0.15625,
            "differ by 0.062, which is within the spread over 3 seeds (standard deviation 0.12): the two can't be "
            "distinguished.\n",
        ),
    ],
)
def test_seeds(swept: Sweep, tmp_path: Path, second_lr: float, note: str) -> None:
    """The accuracies of a trial are 2 lr, and 0.125 and 0.25 more."""
    assert note in swept("--trials=2", "--seeds=3", lr=f"{{choices: [0.125, {second_lr}]}}")
    first, second = sorted(study(tmp_path / "sweep").trials, key=lambda trial: trial.value)
    assert (first.value, first.user_attrs["values"]) == (0.375, [0.25, 0.375, 0.5])
    assert second.value == 2 * second_lr + 0.125
    folder = f"trial_{first.number}/seed_"
    assert first.user_attrs["runs"] == [f"{folder}{seed}/lightning_logs/version_0" for seed in (42, 43, 44)]
    assert first.intermediate_values == {0: 0.125, 1: 0.25}  # of the first seed


def test_the_metric_of_the_best_checkpoint_counts(swept: Sweep, tmp_path: Path) -> None:
    """The best accuracy is that of the last epoch, whose training loss is 0."""
    swept("--trials=1", "--metric=train_loss", "--mode=min", "--trainer.max_epochs=2")
    assert [trial.value for trial in study(tmp_path / "sweep").trials] == [0.0]


def test_a_trial_is_pruned(swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five others were better after the first epoch. The second one would take a minute."""
    swept("--trials=1")
    for _ in range(5):
        add_trial(tmp_path / "sweep", 0.125, value=0.9, intermediate_values={0: 0.9, 1: 0.9})
    monkeypatch.setenv("WAIT", "60")
    printed = swept("--trials=7")
    assert (
        "trial 6 pruned: val_accuracy 0.125 with optimizer.lr 0.125\ntrials  6 complete, 1 pruned, 0 fail\n" in printed
    )
    pruned = study(tmp_path / "sweep").trials[6]
    assert pruned.intermediate_values == {0: 0.125}
    assert pruned.user_attrs["runs"] == ["trial_6/lightning_logs/version_0"]


def test_a_failed_trial_does_not_end_the_sweep(swept: Sweep, tmp_path: Path) -> None:
    """It does not count as one of the two, and its settings are not tried again."""
    printed = swept("--trials=2", lr="{choices: [0.125, 2.0]}")
    assert "trials  2 complete, 0 pruned, 1 fail\n" in printed
    (failed,) = (trial for trial in study(tmp_path / "sweep").trials if trial.state == TrialState.FAIL)
    assert failed.user_attrs["reason"] == "the loss is not finite."
    assert f"trial {failed.number} fail: the loss is not finite. with optimizer.lr 2.0\n" in printed


def test_a_sweep_in_which_everything_fails_ends(swept: Sweep, tmp_path: Path) -> None:
    assert error_of(swept, lr="{choices: [2.0, 3.0]}") == (
        "sweep: error: most trials fail, for the reasons above. The same command continues the sweep."
    )
    assert states(tmp_path / "sweep") == [TrialState.FAIL] * 4


@pytest.mark.parametrize("recorded", [True, False])
def test_a_fit_that_had_ended_when_the_sweep_was_killed(swept: Sweep, tmp_path: Path, recorded: bool) -> None:
    """Its metric is used. If its last files are missing, a resumed fit is refused, and it is repeated."""
    swept("--trials=1")
    add_trial(tmp_path / "sweep", 0.125, state=TrialState.RUNNING, user_attrs={"alive": time.time() - 61})
    shutil.copytree("sweep/trial_0", "sweep/trial_1")
    if not recorded:
        Path("sweep/trial_1/lightning_logs/version_0/model.pth").unlink()
    swept("--trials=2")
    trial = study(tmp_path / "sweep").trials[1]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.25)
    assert trial.user_attrs["runs"] == [f"trial_1/lightning_logs/version_{0 if recorded else 1}"]


def test_a_trial_of_a_living_process_is_left_alone(swept: Sweep, tmp_path: Path) -> None:
    swept("--trials=1")
    add_trial(tmp_path / "sweep", 0.125, state=TrialState.RUNNING, user_attrs={"alive": time.time()})
    swept("--trials=1")
    assert states(tmp_path / "sweep") == [TrialState.COMPLETE, TrialState.RUNNING]


class TestMistakes:
    def test_a_setting_that_fit_does_not_have(self, tmp_path: Path) -> None:
        """The real fit is asked, before anything is recorded."""
        (tmp_path / "space.yaml").write_text("optimizer.lrr: {low: 1e-3, high: 1e-1, log: true}\n")
        arguments = [sys.executable, PROGRAM, "--space=space.yaml", "--config=smoke.yaml"]
        done = subprocess.run(arguments, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert done.stderr.startswith(
            "sweep: error: fit fails with optimizer.lrr 0.001: optimizer: Adam takes no lrr (did you mean lr?); "
        )
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.glob("sweep/*trial*"))

    def test_an_unknown_metric(self, swept: Sweep) -> None:
        assert error_of(swept, "--metric=val_acc") == (
            "sweep: error: fit does not log val_acc. It logs train_loss, val_accuracy."
        )
        swept("--trials=1")  # nothing of the mistake is left

    def test_another_sweep_in_the_folder(self, swept: Sweep) -> None:
        swept("--trials=1")
        assert error_of(swept, "--seeds=2", lr="{choices: [0.5]}") == (
            "sweep: error: sweep has a sweep with another space and another number of seeds. Repeat its command to "
            "continue it, or begin a new sweep in another --folder."
        )

    def test_a_storage_that_can_not_be_used(self, swept: Sweep) -> None:
        message = error_of(swept, "--storage=postgresql://me:secret@127.0.0.1:1/sweeps")
        assert message.startswith("sweep: error: the storage postgresql://127.0.0.1:1/sweeps can't be used: ")
        assert "\n" not in message
        assert error_of(swept, "--storage=sqlite:////no/folder/sweep.db").startswith(
            "sweep: error: the storage sqlite:////no/folder/sweep.db can't be used: "
        )

    def test_a_storage_that_is_lost(self, swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
        def lose(*_: Any) -> None:
            Path("sweep/sweep.db").unlink()
            Path("sweep/sweep.db").mkdir()

        monkeypatch.setattr(sweep.Sweep, "train", lose)
        message = error_of(swept)
        assert message.startswith("sweep: error: the storage failed: ")
        assert message.endswith(" The same command continues the sweep.")
        assert "\n" not in message

    @pytest.mark.parametrize("lr", ["{choices: [1], low: 1}", "{low: 1e-3}", "{low: 2, high: 1}", "{low: x, high: y}"])
    def test_a_range(self, swept: Sweep, lr: str) -> None:
        assert error_of(swept, lr=lr).startswith(
            "sweep: error: optimizer.lr is neither {choices: [...]} nor {low: ..., high: ...} with log or step: "
        )

    def test_nothing_to_search(self, swept: Sweep) -> None:
        message = "sweep: error: a sweep needs choices or a range in space.yaml, and at least 1 trial and 1 seed."
        assert error_of(swept, lr="0.1") == message
        assert error_of(swept, "--trials=0") == message
        assert error_of(swept, "--optimizer.lr=0.1") == message  # an option replaces the setting of the file


def test_the_order_and_the_form_of_options(swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of classes come first, because the parser drops settings of a class when another one is named."""
    Path("full.yaml").write_text(
        "network.width: {low: 16, high: 64, step: 16}\nnetwork: my.Net\n"
        "optimizer: {choices: [Adam, {class_path: SGD}]}\noptimizer.lr: {low: 1e-4, high: 1, log: true}\n"
        "data.mean: [0.5, 0.5]\ncompile: true\nlr_scheduler: null\n"
    )
    options, passed = sweep.make_parser().parse_known_args(["--space=full.yaml", "--data.seed", "3", "--compile=false"])
    monkeypatch.setattr(sweep.Sweep, "begin_or_continue", lambda self: 42)
    found = sweep.Sweep(options, passed)
    assert found.arguments({"network.width": 32, "optimizer": '{"class_path": "SGD"}', "optimizer.lr": 1e-4}) == [
        *("--network=my.Net", '--optimizer={"class_path": "SGD"}', "--lr_scheduler=null"),
        *("--data.seed", "3", "--compile=false"),
        *("--network.width=32", "--optimizer.lr=0.0001", "--data.mean=[0.5, 0.5]"),
    ]
    assert found.space["network.width"] == optuna.distributions.IntDistribution(16, 64, step=16)
    assert found.space["optimizer.lr"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)


def test_the_documented_space() -> None:
    """It is that of the file, without the comments."""
    lines = (ROOT / "examples" / "sweep.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    assert blocks("docs/sweeps.md", "yaml")[0][1] == "".join(line for line in lines if not line.startswith("#"))
