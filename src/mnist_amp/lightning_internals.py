"""Every use of what Lightning keeps private, each with its reason: a new Lightning fails here, and says where."""

from typing import Any

from lightning.pytorch import Trainer


def is_restoring(trainer: Any) -> bool:
    """Whether a Trainer is about to load a checkpoint, or in the midst of it.

    No public hook comes between a checkpoint that was read and one that was restored.
    """
    return bool(trainer._checkpoint_connector._loaded_checkpoint)


def batches_since_validation(trainer: Trainer) -> int | None:
    """Return how many batches have begun since a validation was due, 0 if one is; None without any within epochs."""
    if not isinstance(trainer.val_check_batch, int):
        return None
    progress = trainer.fit_loop.epoch_loop.batch_progress
    count = progress.total if trainer.check_val_every_n_epoch is None else progress.current
    return int(count.ready % trainer.val_check_batch)
