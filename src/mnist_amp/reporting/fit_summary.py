"""What a training run leaves: the guide's `model.pth`, the curves, and a word on how it went."""

import time
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.reporting import plots
from mnist_amp.reporting.text import fit_summary
from mnist_amp.runs import checkpoint_contents, checkpoint_files
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.training.execution import Execution
from mnist_amp.training.metrics import EpochMeans

FILES = ("model.pth", "curves.png", "metrics.csv", "checkpoints/", "config.yaml")


class FitSummary(Callback):
    """Writes `model.pth` and `curves.png` at the end of a fit that kept checkpoints, and prints what came of it.

    The time counted is that of training with its validation and checkpoints, without the start-up.
    """

    def __init__(self, run: RunFolder, checkpoint: RunCheckpoint | None, next_steps: list[str]) -> None:
        self.run, self.checkpoint, self.next_steps = run, checkpoint, next_steps
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        best, device = None, trainer.strategy.root_device
        if self.checkpoint is not None and self.checkpoint.best.is_file():
            best = checkpoint_files.read(self.checkpoint.best)
            with atomic_write(self.run.path / "model.pth") as draft:
                torch.save(_network(best["state_dict"]), draft)
            with atomic_write(self.run.path / "curves.png") as draft:
                plots.curves([row.to_dict() for row in self.checkpoint.history], draft)
        summary = fit_summary(
            *self._accuracy(),
            epochs=None if best is None else checkpoint_contents.progress(best).epochs,
            images=cast(EpochMeans, pl_module.train_means).seen * trainer.world_size,
            seconds=self.seconds,
            # a loader of somebody's own does not count it
            data_seconds=getattr(trainer.train_dataloader, "seconds", None),
            replayed=cast(Execution, pl_module.execution).outcome(),
            device_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            folder=str(self.run.path),
            files=[name for name in FILES if (self.run.path / name).exists()],
            next_steps=self.next_steps,
        )
        print(summary, flush=True)

    def _accuracy(self) -> tuple[str, float | None]:
        """Return which accuracy can be told, and it, or None if there is none."""
        checkpoint = self.checkpoint
        if checkpoint is not None and checkpoint.monitor is not None and checkpoint.best_model_score is not None:
            return "validation", checkpoint.best_model_score.item()
        return "training", checkpoint.history[-1].train_accuracy if checkpoint and checkpoint.history else None


def _network(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keep the weights of SimpleNN alone, under the names that the guide's own SimpleNN gives them."""
    return {key.removeprefix("model."): value for key, value in state_dict.items() if key.startswith("model.")}
