"""The accumulation of gradients: how many batches make an optimizer step, which a callback may change by epoch."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from mnist_amp.errors import RequestError


def accumulates(trainer: Trainer) -> bool:
    """Whether a Trainer may accumulate gradients over several batches."""
    return bool(_schedulers(trainer)) or trainer.accumulate_grad_batches != 1


def batches_of_step(trainer: Trainer, epoch: int) -> int:
    """Return the number of batches that make an optimizer step of an epoch."""
    scheduled = [callback.get_accumulate_grad_batches(epoch) for callback in _schedulers(trainer)]
    return scheduled[-1] if scheduled else trainer.accumulate_grad_batches


def newest_change(trainer: Trainer) -> int:
    """Return the epoch from which on that number stays as it is."""
    return max((epoch for callback in _schedulers(trainer) for epoch in callback.epochs), default=0)


def check_accumulation(trainer: Trainer) -> None:
    """Check the settings of the accumulation before a fit. Lightning does so only when the training has begun.

    Raises:
        RequestError: the number of batches is given twice.
    """
    if _schedulers(trainer) and trainer.accumulate_grad_batches != 1:
        raise RequestError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, and GradientAccumulationScheduler "
            "sets the same number in each epoch. These can't be combined. Leave one of them out."
        )


def _schedulers(trainer: Trainer) -> list[GradientAccumulationScheduler]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, GradientAccumulationScheduler)]
