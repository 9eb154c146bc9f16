"""The progress bar."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from mnist_amp.wording import counted

INTERVAL = 0.2  # seconds between two updates of the bar
SHOWN = {"train_loss_step": "loss", "val_loss": "val_loss", "val_accuracy": "val_accuracy"}


class ProgressBar(TQDMProgressBar):
    """Lightning's tqdm bar, updated so seldom that it does not slow the training.

    Each update reads metrics from the device and waits for it. The bar of each epoch stays on the screen with its
    metrics. If stdout is not a terminal, a line is printed at the end of each epoch instead:

        Epoch 0: 860 batches, loss=0.1471, val_loss=0.2676, val_accuracy=0.9188

    It works with any LightningModule. Metrics that are logged as `train_loss` (by step), `val_loss` and `val_accuracy`
    are shown:

        Trainer(callbacks=[ProgressBar()])
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} {rate_noinv_fmt}{postfix}"

    once_per_execution = True

    def __init__(self) -> None:
        super().__init__(leave=True)
        self.updated = 0.0  # time of the last update
        self.begun = 0  # optimizer steps before this epoch
        self.terminal = sys.stdout.isatty()
        if not self.terminal:
            self.disable()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.terminal and self._is_due(trainer.is_last_batch):
            bar = self.train_progress_bar
            bar.n = trainer.fit_loop.batch_idx + 1
            bar.set_postfix(self.get_metrics(trainer, pl_module))

    # the arguments of these hooks end with the batch, its number and that of the DataLoader

    def on_validation_batch_end(self, *args: Any) -> None:
        if self._is_due(args[4] + 1 == self.val_progress_bar.total):
            super().on_validation_batch_end(*args)

    def on_test_batch_end(self, *args: Any) -> None:
        if self._is_due(args[4] + 1 == self.test_progress_bar.total):
            super().on_test_batch_end(*args)

    def on_predict_batch_end(self, *args: Any) -> None:
        if self._is_due(args[4] + 1 == self.predict_progress_bar.total):
            super().on_predict_batch_end(*args)

    def _is_due(self, is_last: bool) -> bool:
        """Whether to update a bar after this batch; a notebook keeps the text of each update of a command's bar."""
        now = time.monotonic()
        if not is_last and now - self.updated <= INTERVAL:
            return False
        self.updated = now
        return True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal and trainer.is_global_zero:
            shown = self.get_metrics(trainer, pl_module)
            if not self._has_logged(trainer):
                shown.pop("loss", None)  # it is of an epoch before
            metrics = "".join(f", {name}={value:.4g}" for name, value in shown.items())
            batches = trainer.fit_loop.batch_idx + 1
            print(f"Epoch {trainer.current_epoch}: {counted(batches, 'batch')}{metrics}", flush=True)

    def _has_logged(self, trainer: Trainer) -> bool:
        """Whether the loss of a step of this epoch was logged."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and trainer.global_step // every > self.begun // every

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning creates a bar for each epoch because the bars stay, and another bar before the first epoch, which
        # would stay as an empty line
        if not self.train_progress_bar.n:
            self.train_progress_bar.leave = False
            self.train_progress_bar.close()
        super().on_train_epoch_start(trainer, pl_module)
        self.begun = trainer.global_step

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return a few metrics under short names. A line wider than the terminal would be cut off."""
        metrics = super().get_metrics(trainer, pl_module)
        return {short: metrics[name] for name, short in SHOWN.items() if name in metrics}
