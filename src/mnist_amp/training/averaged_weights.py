"""Averages of the weights: `EMAWeightAveraging` and `StochasticWeightAveraging` of Lightning, saved and resumed.

While such a callback averages, a run has two sets of weights: those that the optimizer trains, and their average. All
checkpoints then hold the average as `state_dict`, so that every command uses it, and the trained weights as
`current_model_state`, from which a run is resumed. Lightning's `WeightAveraging` does this itself. For
`StochasticWeightAveraging` this module does it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from mnist_amp.errors import RequestError
from mnist_amp.lightning_internals import average_start, averaged_module, resume_average
from mnist_amp.runs.checkpoint_contents import progress
from mnist_amp.runs.model_checkpoint import RunCheckpoint

TRAINED_WEIGHTS = "current_model_state"  # Lightning's name
STATE = "averaging_state"  # of WeightAveraging
SWA = "StochasticWeightAveraging"


class SavedAverage(Callback):
    """Has a `StochasticWeightAveraging` validate and save its averaged weights, and resume to the bit.

    From the epoch in which the average begins, the validations measure the averaged weights, and the checkpoints hold
    them. The best checkpoint is then the best of these epochs.

    Args:
        average: the callback that averages. This callback must come after it.
        checkpoint: the callback that writes the checkpoints of the run; None if there is none.
    """

    def __init__(self, average: StochasticWeightAveraging, checkpoint: RunCheckpoint | None) -> None:
        self.average, self.checkpoint = average, checkpoint
        self.begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        resume_average(trainer, self.average)
        self.begun = averaged_module(self.average) is not None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.begun and averaged_module(self.average) is not None:
            self.begun = True
            if self.checkpoint is not None:
                self.checkpoint.forget_best()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (average := averaged_module(self.average)) is not None:
            trained = checkpoint[TRAINED_WEIGHTS] = checkpoint["state_dict"]
            # buffers are not averaged
            checkpoint["state_dict"] = {**trained, **{name: value.data for name, value in average.named_parameters()}}

    def _swap(self, module: LightningModule) -> None:
        """Exchange the weights of the module and their average."""
        if (average := averaged_module(self.average)) is None:
            return
        with torch.no_grad():
            for averaged, trained in zip(average.parameters(), module.parameters(), strict=True):
                before = trained.clone()
                trained.copy_(averaged)
                averaged.copy_(before)


def use_trained_weights(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Have a fit resume from the trained weights of a checkpoint, not from their average.

    A `WeightAveraging` does so itself, with a checkpoint that has its state.
    """
    averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if TRAINED_WEIGHTS in checkpoint and not (averages and STATE in checkpoint):
        checkpoint["state_dict"] = checkpoint.pop(TRAINED_WEIGHTS)
        checkpoint.pop(STATE, None)


def average_name(trainer: Trainer) -> str | None:
    """Return the class of the callback that averages the weights; None if there is none."""
    kinds = (WeightAveraging, StochasticWeightAveraging)
    names = [type(callback).__name__ for callback in trainer.callbacks if isinstance(callback, kinds)]  # type: ignore[attr-defined]
    return names[0] if names else None


class Begun(NamedTuple):
    """A stochastic weight average that has begun: in which epoch, from 0."""

    epoch: int

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Begun | None":
        """Return that of a checkpoint; None if there is none or it has not begun."""
        state = checkpoint.get("callbacks", {}).get(SWA) or {}
        if not state.get("n_averaged"):
            return None
        return cls(int(state["latest_update_epoch"] - state["n_averaged"] + 1))


def check_start(trainer: Trainer) -> None:
    """Check that the first epoch of a stochastic average is known.

    Raises:
        RequestError: it is a share of the epochs, and their number has no limit.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging) and trainer.max_epochs in (None, -1):
            share = average_start(callback)
            if isinstance(share, float):
                raise RequestError(
                    f"swa_epoch_start is {share}, a share of the epochs, but trainer.max_epochs is "
                    f"{trainer.max_epochs}. Give the epoch as a whole number, or the run a number of epochs."
                )


def check_average(path: str, checkpoint: Mapping[str, Any], trainer: Trainer, overridden: Mapping[str, Any]) -> None:
    """Refuse to resume a stochastic weight average that can't be what it is in an uninterrupted run.

    Args:
        path: of the checkpoint.
        checkpoint: its content.
        trainer: the Trainer of the resumed run.
        overridden: settings of the callback that are overridden.

    Raises:
        RequestError: the average has begun and its settings differ, or it should have begun earlier.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = [callback for callback in callbacks if isinstance(callback, StochasticWeightAveraging)]
    begun, done = Begun.of(checkpoint), progress(checkpoint).epochs
    start = _first_epoch(average_start(averages[0]), trainer.max_epochs) if averages else None
    if begun is None:
        if start is not None and start < done:
            raise RequestError(
                f"{SWA} would average from epoch {start}, but {path} has trained {done} epochs. "
                f"Begin later, for example with swa_epoch_start {done + 1}, or resume from an earlier checkpoint."
            )
        return
    text = f"{SWA} has averaged since epoch {begun.epoch} in the run of {path}"
    keep = "Leave the setting out, or resume from a checkpoint of an earlier epoch."
    if start is None:
        raise RequestError(f"{text}, and sets its learning rate. This run has no {SWA}. {keep}")
    if start != begun.epoch:
        raise RequestError(
            f"{text}, but with this trainer.max_epochs and swa_epoch_start it would begin in epoch {start}. {keep}"
        )
    if fixed := sorted(set(overridden) - {"device", "swa_epoch_start"}):
        raise RequestError(f"{text}, so {', '.join(fixed)} can't be changed. {keep}")


def _first_epoch(start: int | float, max_epochs: int | None) -> int:
    """Return the epoch, from 0, that begins with an average of one set of weights."""
    return max((start if isinstance(start, int) else int(start * (max_epochs or 0))) - 1, 0)
