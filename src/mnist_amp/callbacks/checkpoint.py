"""The checkpoints of a run."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_amp import runs
from mnist_amp.callbacks.run_folder import RunFolder
from mnist_amp.files import written_whole

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class RunCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt` and `last.ckpt` in the run's folder and, in them, the run's figures by epoch.

    The best is that of the highest validation accuracy, the earlier of two equals; without validation it is the newest.
    A run that goes on from a checkpoint goes on from its figures and its best, too.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__(filename="best", monitor="val_accuracy", mode="max", enable_version_counter=False)
        self.run = run
        self.history: list[dict[str, float]] = []
        self.validated = False  # in this epoch

    @property
    def state_key(self) -> str:
        return type(self).__name__

    @property
    def best(self) -> Path:
        return self.run.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.best.with_name("last.ckpt")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(self.best.parent)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sum(trainer.num_val_batches) == 0:
            self.monitor = None
        if self.history and self.history[-1]["step"] == trainer.global_step:
            self._catch_up_with_plateaus(trainer)
        super().on_train_start(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = not trainer.sanity_checking
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # what is there of an epoch without validation is of an earlier one
        names = FIGURES if self.validated else FIGURES[:2]
        figures = {name: trainer.callback_metrics[name].item() for name in names if name in trainer.callback_metrics}
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **figures})
        self.validated = False
        super().on_train_epoch_end(trainer, pl_module)
        # ModelCheckpoint's own save_last leaves out the epochs that are not the best
        trainer.save_checkpoint(self.last, weights_only=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and self.last.is_file() and not self.best.is_file():
            _copy(self.last, self.best)  # stopped before the first validation

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Carry the best so far over into this run's folder."""
        source = Path(str(trainer.ckpt_path)).with_name("best.ckpt")
        best = runs.read(source) if source.is_file() else None
        if best is None or not self._precedes(best, checkpoint):
            return
        if trainer.is_global_zero:
            _copy(source, self.best)
        self.best_model_path = self.kth_best_model_path = str(self.best)
        score = best["callbacks"][self.state_key]["best_model_score"]
        if score is not None:
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(self.best): score}

    def _precedes(self, best: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
        """Whether `best` is of the run that led to `checkpoint`, and not of what came after it or of another run."""
        if self.state_key not in best["callbacks"] or best["global_step"] > checkpoint["global_step"]:
            return False
        past = best["callbacks"][self.state_key]["history"]
        return bool(checkpoint["callbacks"][self.state_key]["history"][: len(past)] == past)

    def _catch_up_with_plateaus(self, trainer: Trainer) -> None:
        """Take the step of a ReduceLROnPlateau that Lightning takes after an epoch's checkpoint, but not on resuming.

        The figures are those of the last epoch in the history.
        """
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in self.history[-1]:
                config.scheduler.step(self.history[-1][config.monitor])  # type: ignore[arg-type]


def _copy(source: Path, target: Path) -> None:
    with written_whole(target) as draft:
        shutil.copyfile(source, draft)
