"""Averaged weights: they are those of every file and command, and a run with them resumes to the bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist_amp.runs import checkpoint_files
from tests.conftest import Refused, Run, files
from tests.runs.test_exact import SETTINGS, UNSCHEDULED, assert_same, last
from tests.runs.test_resume import flat

EPOCHS = ("--trainer.max_epochs=4",)
EMA = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.9")
SWA = ("--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01")
FROM_2 = ("--trainer.callbacks.swa_epoch_start=3",)  # it counts epochs from 1
LAST = "lightning_logs/version_0/checkpoints/last.ckpt"


def cut(run: Run, step: int, *args: str) -> None:
    """Start a fit that fails at training step `step`, beside the callback of `args`."""
    with pytest.raises(SystemExit):
        run("fit", *args, "--trainer.callbacks+=tests.interrupt.Interrupt", f"--trainer.callbacks.step={step}")


def resume(run: Run, average: tuple[str, ...], *args: str) -> str:
    return run("fit", "--ckpt_path=last", *average, *args)


def weights(version: int, name: str = "last", key: str = "state_dict") -> dict[str, Tensor]:
    read = checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/{name}.ckpt"))
    found: dict[str, Tensor] = read[key]
    return found


@pytest.mark.parametrize("step", [20, 31, 50], ids=lambda step: f"step{step}")
@pytest.mark.parametrize("average", [EMA, (*SWA, *FROM_2)], ids=["ema", "swa"])
@pytest.mark.parametrize("settings", [SETTINGS, UNSCHEDULED], ids=["scheduled", "unscheduled"])
def test_resumed(run: Run, fitted: Run, average: tuple[str, ...], settings: tuple[str, ...], step: int) -> None:
    fitted(*settings, *EPOCHS, *average)
    cut(run, step, *settings, *EPOCHS, *average)
    resume(run, average)
    assert_same(2)


@pytest.mark.parametrize("steps", ["1", "7"])
def test_resumed_twice_with_a_gradient_scaler(run: Run, fitted: Run, steps: str) -> None:
    fp16, average = "-c=fp16-cpu.yaml", (*SWA, *FROM_2)
    fitted(fp16, *SETTINGS, *EPOCHS, *average)
    cut(run, 45, fp16, *SETTINGS, *EPOCHS, *average, f"--model.steps_per_execution={steps}")
    cut(run, 52, "--ckpt_path=last", *average)
    resume(run, average)
    assert_same(3)


def mean(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    average = values[0]
    for count, newer in enumerate(values[1:], 2):
        average = {name: average[name] + (newer[name] - average[name]) / count for name in average}
    return average


def test_the_stochastic_average_is_what_every_file_holds(run: Run) -> None:
    # Lightning averages the weights that each epoch from the first begins with
    begins = []
    for epochs in (2, 3):
        run("fit", *UNSCHEDULED, *EPOCHS, *SWA, *FROM_2, f"--trainer.max_steps={20 * epochs}")
        begins.append(weights(epochs - 2, key="current_model_state" if epochs > 2 else "state_dict"))
    out = run("fit", *UNSCHEDULED, *EPOCHS, *SWA, *FROM_2)
    expected = mean(begins)
    torch.testing.assert_close(weights(2), expected, rtol=1e-6, atol=1e-7)  # sums in another order
    assert flat(weights(2, "best")) == flat(weights(2))
    model = torch.load("lightning_logs/version_2/model.pth", weights_only=True)
    assert flat({f"model.{name}": value for name, value in model.items()}) == flat(weights(2))
    assert "; weights averaged by StochasticWeightAveraging)\n" in out
    assert not torch.equal(weights(2)["model.fc1.weight"], weights(2, key="current_model_state")["model.fc1.weight"])


def test_the_best_stochastic_average_replaces_better_weights_before_it(run: Run) -> None:
    """Otherwise best.ckpt could hold weights that are no average."""
    rise = ("--lr_scheduler=MultiStepLR", "--lr_scheduler.milestones=[2]", "--lr_scheduler.gamma=1000")
    run("fit", *UNSCHEDULED, *EPOCHS, *SWA, *FROM_2, *rise)
    _, before, first, second = (row["val_accuracy"] for row in last(0)["callbacks"]["RunCheckpoint"]["history"])
    assert before == first > second  # the first average is of the weights before it alone
    best = checkpoint_files.read(Path("lightning_logs/version_0/checkpoints/best.ckpt"))
    assert "current_model_state" in best
    assert best["epoch"] == 2


@pytest.mark.parametrize("average", [EMA, (*SWA, *FROM_2)], ids=["ema", "swa"])
def test_commands_score_the_average(run: Run, average: tuple[str, ...]) -> None:
    run("fit", *UNSCHEDULED, *EPOCHS, *average, "--trainer.limit_val_batches=1.0")
    row = last(0)["callbacks"]["RunCheckpoint"]["history"][-1]
    out = run("validate", "--ckpt_path=last")
    assert f"{row['val_accuracy']:.2%}" in out
    assert "step 80, averaged weights" in out
    assert ", step 80, averaged weights)" in run("export", "--ckpt_path=last", "--formats=[pth]")


def test_without_its_callback_a_run_resumes_from_the_trained_weights(run: Run, fitted: Run) -> None:
    fitted(*SETTINGS)
    run("fit", *SETTINGS, *EMA, "--trainer.max_epochs=2")
    out = run("fit", "--ckpt_path=last", "--trainer.callbacks=null", "--trainer.max_epochs=3")
    assert "trainer.callbacks [EMAWeightAveraging] -> []" in out
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert flat(last(2)[key]) == flat(last(0)[key]), key


def begun(*more: str) -> tuple[str, ...]:
    return ("fit", *UNSCHEDULED, *EPOCHS, *SWA, *FROM_2, *more)


SINCE = f"StochasticWeightAveraging has averaged since epoch 2 in the run of {LAST}"
KEEP = "Leave the setting out, or resume from a checkpoint of an earlier epoch."
RATES = (
    "StochasticWeightAveraging sets the learning rate of this run already, so no setting of the optimizer or of its "
    "schedule can be changed. Leave it out, or resume from a checkpoint of an earlier epoch."
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--trainer.callbacks=null",
            f"{SINCE}, and sets its learning rate. This run has no StochasticWeightAveraging. {KEEP}",
        ),
        (
            "--trainer.callbacks.swa_epoch_start=4",
            f"{SINCE}, but with this trainer.max_epochs and swa_epoch_start it would begin in epoch 3. {KEEP}",
        ),
        ("--trainer.callbacks.swa_lrs=0.02", f"{SINCE}, so swa_lrs can't be changed. {KEEP}"),
        ("--trainer.callbacks.annealing_epochs=3", f"{SINCE}, so annealing_epochs can't be changed. {KEEP}"),
        ("--optimizer.lr=0.1", RATES),
        ("--lr_scheduler=CosineAnnealingLR --lr_scheduler.T_max=4", RATES),
    ],
)
def test_an_average_that_has_begun_is_not_changed(run: Run, refused: Refused, override: str, message: str) -> None:
    run(*begun("--trainer.max_steps=50"))
    before = files(Path())
    resumed = ("fit", "--ckpt_path=last", "--trainer.max_steps=-1", *override.split())
    assert refused(*resumed) == f"mnist-amp: error: {message}\n"
    assert files(Path()) == before


def test_an_average_begins_in_an_epoch_that_is_not_over(run: Run, refused: Refused) -> None:
    run("fit", *UNSCHEDULED, "--trainer.max_epochs=3")
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=5", *SWA, *FROM_2) == (
        f"mnist-amp: error: StochasticWeightAveraging would average from epoch 2, but {LAST} has trained 3 epochs. "
        "Begin later, for example with swa_epoch_start 4, or resume from an earlier checkpoint.\n"
    )
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=5", *SWA, "--trainer.callbacks.swa_epoch_start=4")
    run("fit", *UNSCHEDULED, "--trainer.max_epochs=5", *SWA, "--trainer.callbacks.swa_epoch_start=4")
    assert_same(2, 1)


def test_a_share_of_epochs_needs_their_number(refused: Refused) -> None:
    share = ("--trainer.callbacks.swa_epoch_start=0.5", "--trainer.max_epochs=-1", "--trainer.max_steps=50")
    assert refused("fit", *UNSCHEDULED, *SWA, *share) == (
        "mnist-amp: error: swa_epoch_start is 0.5, a share of the epochs, but trainer.max_epochs is -1. "
        "Give the epoch as a whole number, or the run a number of epochs.\n"
    )
    assert not Path("lightning_logs").exists()
