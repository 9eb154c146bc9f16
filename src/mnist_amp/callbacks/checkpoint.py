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

    @property
    def state_key(self) -> str:
        return type(self).__name__

    @property
    def best(self) -> Path:
        return self.run.path / "checkpoints" / "best.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(self.best.parent)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sum(trainer.num_val_batches) == 0:
            self.monitor = None
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        figures = {name: metrics[name].item() for name in FIGURES if name in metrics}
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **figures})
        super().on_train_epoch_end(trainer, pl_module)
        # ModelCheckpoint's own save_last leaves out the epochs that are not the best
        trainer.save_checkpoint(self.best.with_name("last.ckpt"), weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Carry the best so far over into this run's folder."""
        source = Path(str(trainer.ckpt_path)).with_name("best.ckpt")
        best = runs.read(source) if source.is_file() else None
        # a best from after the checkpoint belongs to what is trained anew from here
        if best is None or best["global_step"] > checkpoint["global_step"] or self.state_key not in best["callbacks"]:
            return
        if trainer.is_global_zero:
            with written_whole(self.best) as draft:
                shutil.copyfile(source, draft)
        self.best_model_path = self.kth_best_model_path = str(self.best)
        score = best["callbacks"][self.state_key]["best_model_score"]
        if score is not None:
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(self.best): score}
