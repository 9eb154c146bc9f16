"""What a training run leaves: the guide's `model.pth`, the curves, and a word on how it went."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp import plots, runs
from mnist_amp.callbacks.checkpoint import RunCheckpoint
from mnist_amp.files import written_whole
from mnist_amp.report import fit_summary


class FitSummary(Callback):
    """Writes `model.pth` and `curves.png` at the end of a fit and prints what came out of it.

    The time counted is that of training with its validation and checkpoints, without the start-up.
    """

    def __init__(self, checkpoint: RunCheckpoint, next_steps: list[str]) -> None:
        self.checkpoint, self.next_steps = checkpoint, next_steps
        self.images, self.seconds = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch.labels) * trainer.world_size

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.checkpoint.best.is_file():
            return
        folder = self.checkpoint.run.path
        best = runs.read(self.checkpoint.best)
        with written_whole(folder / "model.pth") as draft:
            torch.save(_network(best["state_dict"]), draft)
        with written_whole(folder / "curves.png") as draft:
            plots.curves(self.checkpoint.history, draft)
        print(
            fit_summary(
                accuracy=self._accuracy(),
                validated=self.checkpoint.monitor is not None,
                epochs=runs.position(best)["epochs"],
                images=self.images,
                seconds=self.seconds,
                folder=str(folder),
                next_steps=self.next_steps,
            ),
            flush=True,
        )

    def _accuracy(self) -> float:
        """Return the accuracy that goes with the best checkpoint, on training images where none were held out."""
        if self.checkpoint.best_model_score is not None:
            return self.checkpoint.best_model_score.item()
        return self.checkpoint.history[-1]["train_accuracy"]


def _network(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keep the weights of SimpleNN alone, under the names that the guide's own SimpleNN gives them."""
    return {key.removeprefix("model."): value for key, value in state_dict.items() if key.startswith("model.")}
