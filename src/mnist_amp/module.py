"""SimpleNN as a LightningModule: the cross-entropy step, its metrics, its optimizer."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from mnist_amp import runs
from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError
from mnist_amp.execution import Execution
from mnist_amp.metrics import EpochMeans, Scores, epoch_means, loss_and_accuracy
from mnist_amp.model import SimpleNN
from mnist_amp.scaler import newest_step_was_skipped
from mnist_amp.trust import trusted

ADAM: dict[str, Any] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}


class LitSimpleNN(LightningModule):
    """Trains SimpleNN by cross-entropy. Autocast and gradient scaling are the Trainer's, by its `precision`.

    Its hyperparameters are plain values, so that its checkpoints load with `weights_only=True`.

    Args:
        hidden_dim: width of the hidden layer
        optimizer: class_path and init_args of the optimizer; by default Adam at 0.001
        lr_scheduler: class_path and init_args of the learning-rate schedule; by default none
        lr_scheduler_interval: whether the schedule advances every epoch or every optimizer step
        steps_per_execution: optimizer steps in one step of the Trainer's loop; with more than 1 the loop costs less,
            and on a CUDA device the steps are captured as a CUDA graph

    Raises:
        RequestError: hidden_dim or steps_per_execution is less than 1.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        steps_per_execution: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("steps_per_execution", steps_per_execution)):
            if value < 1:
                raise RequestError(f"model.{name} is {value}; it must be at least 1.")
        self.save_hyperparameters()
        self.model = SimpleNN(hidden_dim)
        self.execution = Execution(self, steps_per_execution)
        self.train_means = EpochMeans()
        self.loss: Tensor  # (), of the newest optimizer step
        self.scores = Scores()
        self.optimizer_init, self.lr_scheduler_init = {"init_args": {}, **(optimizer or ADAM)}, lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # its other options would only weaken what is verified
        cls, checkpoint_path: str | Path, **hparams: Any
    ) -> Self:
        """Make the module of a checkpoint on the CPU, without ever running code from the file.

        Args:
            checkpoint_path: a file.
            hparams: in the place of those in the checkpoint.

        Raises:
            RequestError: the file is damaged or not a checkpoint, or has weights that are not finite.
        """
        checkpoint = runs.read(Path(checkpoint_path))
        saved = trusted(Path(checkpoint_path), checkpoint["hyper_parameters"], is_given=hparams.__contains__)
        module = cls(**{**saved, **hparams})
        module.load_state_dict(checkpoint["state_dict"])
        return module

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # which Lightning notes some forty times a step; a module's own way is slow
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Score normalised images (N, 1, 28, 28); returns logits (N, 10)."""
        logits: Tensor = self.model(images.to(self.dtype))  # another dtype than float32 with 16-true and bf16-true
        return logits

    def on_train_start(self) -> None:
        self.execution.start()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.train_means.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy () of a batch; nothing here waits for the device."""
        logits, loss = self.loss_of(batch)
        self.loss = loss.detach()
        self.train_means.update(self.loss, logits.detach(), batch.labels)
        return loss

    def loss_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits (N, 10) and the mean cross-entropy () of a batch."""
        logits = self(batch.images)
        return logits, F.cross_entropy(logits, batch.labels)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        if self.execution.steps > 1:
            self.execution.run(optimizer, cast(Closure, optimizer_closure))
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # self.log costs more than the step itself, so it is called only where a logger will write
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self._current_fx_name = "training_step"  # where Lightning allows it
            self.log("train_loss_step", self.loss, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        rows = torch.as_tensor(self.all_gather(self.train_means.rows()))
        self.log_dict({f"train_{name}": value for name, value in epoch_means(rows).items()})

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
        self._check_accumulation()
        try:
            optimizer = instantiate_class(self.parameters(), self.optimizer_settings())
            if self.lr_scheduler_init is None:
                return {"optimizer": optimizer}
            scheduler = instantiate_class(optimizer, self.lr_scheduler_init)
        except RequestError:
            raise
        except (ValueError, TypeError) as error:
            raise RequestError(f"the optimizer or its schedule can't be made: {error}.") from error
        monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.lr_scheduler_interval, "monitor": monitor},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        # a step that was skipped is none to the schedule either, where that costs no wait for the device
        if self.lr_scheduler_interval == "epoch" or not newest_step_was_skipped(self.trainer):
            super().lr_scheduler_step(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # what an epoch has counted so far, by process, or a resumed epoch's means would leave it out
        rows = self.train_means.rows()
        checkpoint["train_means"] = torch.as_tensor(self.all_gather(rows)).reshape(-1, *rows.shape).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the settings that this module was made with go before those that the optimizer's state has with it.

        A learning rate keeps the factor that the schedule has brought it to.
        """
        if getattr(self, "_trainer", None) is None:
            return
        self._load_means(checkpoint.get("train_means"))
        before = (checkpoint["hyper_parameters"].get("optimizer") or ADAM).get("init_args", {})
        now = self.optimizer_settings()["init_args"]
        changed = {key: value for key, value in now.items() if before.get(key, value) != value}
        new, old = changed.pop("lr", None), before.get("lr")
        groups = [group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]]
        for group in groups:
            group.update({key: value for key, value in changed.items() if key in group})
            if "fused" in group:
                group["fused"] = now.get("fused")  # goes with clipping, which is not the optimizer's to say
        schedules = checkpoint.get("lr_schedulers", [])
        for schedule in schedules:
            schedule.update(
                {key: value for key, value in self._schedule_changes(checkpoint).items() if key in schedule}
            )
        if new is not None and old:
            for held in (*groups, *schedules):
                _rescale(held, old, new)

    def _score(self, batch: Batch) -> Tensor:
        images, labels, places = batch
        logits: Tensor = self(images)
        self.scores.update(places, labels, logits)
        return logits

    def _log_scores(self, stage: str) -> None:
        values = loss_and_accuracy(self.scores.compute())
        # every process has the figures of all of them already
        self.log_dict({f"{stage}_{name}": value for name, value in values.items()}, prog_bar=True, sync_dist=False)

    def _load_means(self, rows: Tensor | None) -> None:
        if rows is None:
            return
        if len(rows) != self.trainer.world_size:  # of another number of processes: all on the first one
            rows = rows.reshape(1, -1, rows.shape[-1])
            rows = torch.cat([rows, torch.zeros(self.trainer.world_size - 1, *rows.shape[1:])])
        self.train_means.load(rows[self.trainer.global_rank].to(self.device))

    def _check_accumulation(self) -> None:
        scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        if self.execution.steps > 1 and (scheduled or self.trainer.accumulate_grad_batches != 1):
            raise RequestError(
                f"model.steps_per_execution is {self.execution.steps}, and gradients are to be accumulated over "
                "batches. These can't be combined. Leave one of them out."
            )

    def _schedule_changes(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        before, now = checkpoint["hyper_parameters"].get("lr_scheduler"), self.lr_scheduler_init
        if not before or not now:
            return {}
        return {key: value for key, value in now["init_args"].items() if before["init_args"].get(key) != value}

    def optimizer_settings(self) -> dict[str, Any]:
        """Return class_path and init_args of the optimizer, with `fused` chosen where the user did not choose.

        A fused optimizer is faster, and unscales fp16 gradients itself, which spares a host synchronisation per step.
        But with it Lightning can't clip gradients in mixed precision, and says so only at the first step.
        """
        init_args = self.optimizer_init["init_args"]
        module, _, name = self.optimizer_init["class_path"].rpartition(".")
        takes_fused = "fused" in inspect.signature(getattr(importlib.import_module(module), name)).parameters
        mixed = isinstance(self.trainer.precision_plugin, MixedPrecision)
        clipped = mixed and bool(self.trainer.gradient_clip_val)
        if clipped and init_args.get("fused"):
            raise RequestError(
                "optimizer.fused and trainer.gradient_clip_val can't be combined in mixed precision, as a fused "
                "optimizer unscales the gradients after they would be clipped. Leave one of them out."
            )
        chosen = init_args.get("fused") is not None or any(init_args.get(key) for key in ("foreach", "differentiable"))
        if clipped or chosen or not takes_fused:
            return self.optimizer_init
        return {**self.optimizer_init, "init_args": {**init_args, "fused": True}}


def _rescale(held: dict[str, Any], old: float, new: float) -> None:
    """Put a new base learning rate in the place of the old one in what an optimizer's group or a schedule holds."""

    def rescaled(rate: float) -> float:
        return new if rate == old else rate * new / old

    for key in ("lr", "initial_lr"):
        if key in held:
            held[key] = rescaled(held[key])
    for key in ("base_lrs", "_last_lr"):
        if key in held:
            held[key] = [rescaled(rate) for rate in held[key]]
