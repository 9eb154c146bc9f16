"""A callback that ends a run at a certain point, as a kill would, with nothing saved."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class CutOffError(Exception):
    pass


class Interrupt(Callback):
    """Raises before training step `step`, or in the first validation from then on."""

    def __init__(self, step: int, validating: bool = False) -> None:
        self.step, self.validating = step, validating

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.step and not self.validating:
            raise CutOffError

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.global_step >= self.step and self.validating and not trainer.sanity_checking:
            raise CutOffError
