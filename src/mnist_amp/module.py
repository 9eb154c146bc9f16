"""SimpleNN as a LightningModule: the cross-entropy step, its metrics, its optimizer."""

import inspect
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError
from mnist_amp.metrics import EpochMeans, Scores, loss_and_accuracy
from mnist_amp.model import SimpleNN

ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}


class LitSimpleNN(LightningModule):
    """Trains SimpleNN by cross-entropy. Autocast and gradient scaling are the Trainer's, by its `precision`.

    Its hyperparameters are plain values, so that its checkpoints load with `weights_only=True`.

    Args:
        hidden_dim: width of the hidden layer
        optimizer: class_path and init_args of the optimizer; by default Adam at 0.001
        lr_scheduler: class_path and init_args of the learning-rate schedule; by default none
        lr_scheduler_interval: whether the schedule advances every epoch or every optimizer step

    Raises:
        RequestError: hidden_dim is less than 1.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        if hidden_dim < 1:
            raise RequestError(f"model.hidden_dim is {hidden_dim}; it must be at least 1.")
        self.save_hyperparameters()
        self.model = SimpleNN(hidden_dim)
        self.train_means = EpochMeans()
        self.scores = Scores()
        self.optimizer_init, self.lr_scheduler_init = {"init_args": {}, **(optimizer or ADAM)}, lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval

    def forward(self, images: Tensor) -> Tensor:
        """Score normalised images (N, 1, 28, 28); returns logits (N, 10)."""
        logits: Tensor = self.model(images.to(self.dtype))  # another dtype than float32 with 16-true and bf16-true
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels, _ = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        if batch_idx == 0:
            self.train_means.reset()
        self.train_means.update(loss.detach(), logits.detach(), labels)
        # self.log costs more than the step itself, so it is called only where a logger will write
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every == 0:
            self.log("train_loss_step", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"train_{name}": value for name, value in self.train_means.compute().items()})

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        self.scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def on_predict_epoch_start(self) -> None:
        self.scores.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities (N, 10) of a batch; `scores` keeps the logits of them all."""
        return self._score(batch).float().softmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = instantiate_class(self.parameters(), self._fused_unless_clipped())
        if self.lr_scheduler_init is None:
            return {"optimizer": optimizer}
        scheduler = instantiate_class(optimizer, self.lr_scheduler_init)
        monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.lr_scheduler_interval, "monitor": monitor},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # An optimizer takes its settings from the checkpoint, `fused` too, which is not to outlive a change of clipping
        if getattr(self, "_trainer", None) is None:
            return
        fused = self._fused_unless_clipped()["init_args"].get("fused")
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                if "fused" in group:
                    group["fused"] = fused

    def _score(self, batch: Batch) -> Tensor:
        images, labels, places = batch
        logits: Tensor = self(images)
        self.scores.update(places, labels, logits)
        return logits

    def _log_scores(self, stage: str) -> None:
        values = loss_and_accuracy(self.scores.compute())
        # every process has the figures of all of them already
        self.log_dict({f"{stage}_{name}": value for name, value in values.items()}, prog_bar=True, sync_dist=False)

    def _fused_unless_clipped(self) -> dict[str, Any]:
        """Return `optimizer_init` with `fused` chosen where the user did not choose.

        A fused optimizer is faster, and unscales fp16 gradients itself, which spares a host synchronisation per step.
        But Lightning can't clip gradients that are still scaled, and says so only at the first step.
        """
        init_args = self.optimizer_init["init_args"]
        module, _, name = self.optimizer_init["class_path"].rpartition(".")
        optimizer_class = getattr(__import__(module, fromlist=[name]), name)
        clipped = bool(self.trainer.gradient_clip_val)
        if clipped and init_args.get("fused"):
            raise RequestError(
                "optimizer.fused and trainer.gradient_clip_val can't be combined, as a fused optimizer unscales the "
                "gradients after they would be clipped. Leave one of them out."
            )
        taken = any(init_args.get(name) for name in ("foreach", "differentiable"))
        if clipped or taken or init_args.get("fused") is not None:
            return self.optimizer_init
        if "fused" not in inspect.signature(optimizer_class).parameters:
            return self.optimizer_init
        return {**self.optimizer_init, "init_args": {**init_args, "fused": True}}
