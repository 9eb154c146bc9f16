"""The progress bar."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from mnist_amp.wording import counted

SECONDS = 0.2  # between two looks of the bar
SHOWN = {"train_loss_step": "loss", "val_loss": "val_loss", "val_accuracy": "val_accuracy"}


class ProgressBar(TQDMProgressBar):
    """Lightning's tqdm bar, kept for each epoch with its figures, and drawn seldom enough not to slow training.

    To draw it is to read figures from the device. Where the output is not a terminal, an epoch is a line instead.
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} {rate_noinv_fmt}{postfix}"

    def __init__(self) -> None:
        super().__init__(leave=True)
        self.drawn = 0.0
        self.terminal = sys.stdout.isatty()
        if not self.terminal:
            self.disable()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        bar, now = self.train_progress_bar, time.monotonic()
        if self.terminal and (now - self.drawn > SECONDS or trainer.is_last_batch):
            self.drawn, bar.n = now, trainer.fit_loop.batch_idx + 1
            bar.set_postfix(self.get_metrics(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal and trainer.is_global_zero:
            metrics = self.get_metrics(trainer, pl_module)
            figures = "".join(f", {name}={value:.4g}" for name, value in metrics.items())
            batches = trainer.fit_loop.batch_idx + 1
            print(f"Epoch {trainer.current_epoch}: {counted(batches, 'batch')}{figures}", flush=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning makes a bar an epoch, as they are kept, but one before them, too, which would stay as an empty line
        if not self.train_progress_bar.n:
            self.train_progress_bar.leave = False
            self.train_progress_bar.close()
        super().on_train_epoch_start(trainer, pl_module)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return few figures under short names: a line that is wider than the terminal is cut off."""
        metrics = super().get_metrics(trainer, pl_module)
        return {short: metrics[name] for name, short in SHOWN.items() if name in metrics}
