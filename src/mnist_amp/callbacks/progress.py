"""The progress bar."""

import sys

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's tqdm bar, kept for each epoch with its figures, and refreshed seldom enough not to slow training.

    Every refresh reads figures from the device. Where the output is not a terminal, an epoch is a line instead.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=25, leave=True)
        self.terminal = sys.stdout.isatty()
        if not self.terminal:
            self.disable()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal and trainer.is_global_zero:
            metrics = self.get_metrics(trainer, pl_module)
            figures = ", ".join(f"{name}={value:.4g}" for name, value in metrics.items())
            print(f"Epoch {trainer.current_epoch}: {trainer.num_training_batches} batches, {figures}", flush=True)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the run's folder is in the banner
        return metrics
