"""Callbacks of a resumed run keep their progress, with the settings of now; a run that one has ended says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from mnist_amp.training.callback_progress import Ending, Setting, ending
from tests.conftest import Refused, Run, files
from tests.runs.test_exact import UNSCHEDULED, last
from tests.runs.test_resume import flat

LAST = "lightning_logs/version_0/checkpoints/last.ckpt"
STOPPING = ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss")
# no improvement is large enough
NEVER_BETTER = (*STOPPING, "--trainer.callbacks.min_delta=9")
EIGHT = (*UNSCHEDULED, "--trainer.max_epochs=8")


def stopped(run: Run, patience: int, *args: str) -> str:
    return run("fit", *EIGHT, *NEVER_BETTER, f"--trainer.callbacks.patience={patience}", *args)


def test_a_run_that_early_stopping_ends(run: Run, refused: Refused) -> None:
    out = stopped(run, 1)
    score = float(last(0)["callbacks"]["EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"]["best_score"])
    because = f"because val_loss had not improved for 1 check (best {score:.4g})"
    assert f"\nended     after step 40 by EarlyStopping, {because}\n" in out
    assert "\n          mnist-amp fit --ckpt_path last --trainer.callbacks.patience 2\n" in out
    before = files(Path())
    message = (
        f"mnist-amp: error: EarlyStopping ended the run of {LAST} after 2 epochs, {because}. With the same settings it "
        "would soon end this run again. Change one, for example --trainer.callbacks.patience 2, or leave the "
        "callbacks out: --trainer.callbacks null.\n"
    )
    assert refused("fit", "--ckpt_path=last") == message
    assert refused("fit", "--ckpt_path=last", "--trainer.callbacks.verbose=true") == message
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=16", "--trainer.callbacks.patience=1") == message
    assert files(Path()) == before


def test_the_new_patience_holds(run: Run) -> None:
    """The resumed run ends where a run with this patience from its start ends, and can be resumed again."""
    stopped(run, 1)
    out = run("fit", "--ckpt_path=last", "--trainer.callbacks.patience=3")
    assert "\nchanged     trainer.callbacks.EarlyStopping.patience 1 -> 3\n" in out
    stopped(run, 3)
    assert last(1)["epoch"] == 3
    for key in ("state_dict", "callbacks", "loops", "optimizer_states"):
        assert flat(last(1)[key]) == flat(last(2)[key]), key
    run("fit", "--ckpt_path=lightning_logs/version_1", "--trainer.callbacks.patience=9", "--trainer.max_epochs=5")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=6")  # this time nothing had ended it
    assert last(4)["epoch"] == 5


def test_the_new_min_delta_holds(run: Run) -> None:
    stopped(run, 1)
    run("fit", "--ckpt_path=last", "--trainer.callbacks.min_delta=0", "--trainer.max_epochs=4")
    state = last(1)["callbacks"]["EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"]
    assert (state["wait_count"], state["stopping_reason"]) == (0, 0)
    assert last(1)["epoch"] == 3


def test_best_and_count_come_from_the_checkpoint(run: Run) -> None:
    stopped(run, 4, "--trainer.max_epochs=2")
    out = run("fit", "--ckpt_path=last", "--trainer.max_epochs=8")
    assert "\nended     after step 100 by EarlyStopping, because val_loss had not improved for 4 checks" in out


def test_another_threshold(run: Run, refused: Refused) -> None:
    at_once = (*STOPPING, "--trainer.callbacks.stopping_threshold=9")
    out = run("fit", *EIGHT, *at_once)
    because = "because val_loss had reached stopping_threshold 9.0"
    assert f"\nended     after step 20 by EarlyStopping, {because}\n" in out
    assert "\n          mnist-amp fit --ckpt_path last --trainer.callbacks.stopping_threshold null\n" in out
    assert f", {because}. With the same settings" in refused(
        "fit", "--ckpt_path=last", "--trainer.callbacks.patience=9"
    )
    run("fit", "--ckpt_path=last", "--trainer.callbacks.stopping_threshold=null", "--trainer.max_epochs=3")
    assert last(1)["epoch"] == 2


def test_the_hint_is_for_the_last_callback_only(run: Run) -> None:
    out = stopped(run, 1, "--trainer.callbacks+=LearningRateMonitor")
    assert "mnist-amp fit --ckpt_path last" not in out


class CountsEpochs(Callback):
    """Its settings and its progress have the same names in its state, as in many callbacks."""

    def __init__(self, every: int = 1, factor: float = 1.0) -> None:
        self.every, self.factor, self.count = every, factor, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.count += 1
        self.factor /= 2

    def state_dict(self) -> dict[str, Any]:
        return {"every": self.every, "factor": self.factor, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ((), {"every": 5, "factor": 0.25, "count": 3}),
        (("--trainer.callbacks.every=7",), {"every": 7, "factor": 0.25, "count": 3}),
        (("--trainer.callbacks.factor=1",), {"every": 5, "factor": 0.5, "count": 3}),
    ],
)
def test_only_what_is_overridden_differs_from_the_state(
    run: Run, override: tuple[str, ...], expected: dict[str, float]
) -> None:
    own = "--trainer.callbacks=tests.training.test_callback_progress.CountsEpochs"
    settings = (own, "--trainer.callbacks.every=5", "--trainer.callbacks.factor=2")
    run("fit", *UNSCHEDULED, *settings, "--trainer.max_epochs=2")
    run("fit", "--ckpt_path=last", *settings, *override, "--trainer.max_epochs=3")
    state = last(1)["callbacks"]["CountsEpochs"]
    assert {name: state[name] for name in expected} == expected


def test_a_limit_of_time_is_each_commands_own(run: Run) -> None:
    limit = ("--trainer.max_time=00:00:00:01", "--trainer.max_epochs=9999")
    for resumed in ((), ("--ckpt_path=last",), ("--ckpt_path=last",)):
        out = run("fit", *UNSCHEDULED, *limit, *resumed)
        assert "by the time limit of 1 s\n" in out
        assert "\n          mnist-amp fit --ckpt_path last\n" in out
    steps = [last(version)["global_step"] for version in range(3)]
    assert 0 < steps[0] < steps[1] < steps[2]


def test_a_configuration_leaves_out_what_yaml_can_not_hold(run: Run) -> None:
    """The device of StochasticWeightAveraging is an object; jsonargparse writes a sentence for it."""
    averages = ("--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01")
    run("fit", *UNSCHEDULED, *averages)
    config = Path("lightning_logs/version_0/config.yaml")
    (callback,) = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    assert callback["init_args"] == {
        **{"swa_lrs": 0.01, "swa_epoch_start": 0.8, "annealing_epochs": 10, "annealing_strategy": "cos"},
        "avg_fn": None,
    }
    run("fit", f"--config={config}")
    assert flat(last(1)["state_dict"]) == flat(last(0)["state_dict"])


def trainer(*callbacks: Callback, should_stop: bool = True) -> Trainer:
    made = Trainer(accelerator="cpu", logger=False, enable_model_summary=False, callbacks=[*callbacks])
    made.should_stop = should_stop
    return made


@pytest.mark.parametrize(
    ("reason", "settings", "clause", "setting"),
    [
        (
            *(EarlyStoppingReason.PATIENCE_EXHAUSTED, {"patience": 2}),
            *("val_loss had not improved for 3 checks (best 0.25)", Setting("patience", "6")),
        ),
        (
            *(EarlyStoppingReason.DIVERGENCE_THRESHOLD, {"divergence_threshold": 9.5}),
            *("val_loss had reached divergence_threshold 9.5", Setting("divergence_threshold", "null")),
        ),
        (EarlyStoppingReason.NON_FINITE_METRIC, {}, "val_loss was not finite", Setting("check_finite", "false")),
    ],
)
def test_the_reason_of_early_stopping(
    reason: EarlyStoppingReason, settings: dict[str, Any], clause: str, setting: Setting
) -> None:
    callback = EarlyStopping("val_loss", **settings)
    callback.stopping_reason, callback.wait_count, callback.best_score = reason, 3, torch.tensor(0.25)
    assert ending(trainer(callback)) == Ending(f"EarlyStopping, because {clause}", callback, setting)
    assert ending(trainer(callback, should_stop=False)) is None


def test_another_reason() -> None:
    idle = EarlyStopping("val_loss")
    assert ending(trainer(idle, Timer("00:01:00:00"))) == Ending(
        "a callback or the module, which set trainer.should_stop"
    )
