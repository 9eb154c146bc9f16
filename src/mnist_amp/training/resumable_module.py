"""The base class that makes a LightningModule resumable to the bit, and fast. The network itself is in a subclass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.errors import RequestError
from mnist_amp.lightning_internals import QuickHooksModule, align_logged_step
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.epoch_position import Batches, convert_position
from mnist_amp.runs.trust import trusted_settings
from mnist_amp.training.accumulation import batches_of_step
from mnist_amp.training.averaged_weights import use_trained_weights
from mnist_amp.training.clipping import clip_gradients
from mnist_amp.training.compilation import CompilableModule, Compilation
from mnist_amp.training.execution import AUTO, Execution
from mnist_amp.training.gradient_scaler import newest_step_was_skipped
from mnist_amp.training.metrics import EpochMeans
from mnist_amp.training.optimizers import ADAM, check_closure, make_optimizers, with_fused
from mnist_amp.training.resume_overrides import override_optimizer_state


class ResumableModule(QuickHooksModule):
    """A LightningModule that resumes to the bit, even with other settings, and takes several steps per execution.

    A subclass holds the network, and calls `record_step` in its `training_step`:

        class LitLinear(ResumableModule):
            def __init__(self, dropout: float = 0.1, **settings: Any) -> None:
                super().__init__(**settings)
                self.save_hyperparameters()
                self.model = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(784, 10))

            def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
                logits = self.model(batch.images)
                loss = F.cross_entropy(logits, batch.labels)
                self.record_step(loss, logits, batch.labels)
                return loss

    Its hyperparameters must be plain values, because its checkpoints are loaded with `weights_only=True`.

    Args:
        optimizer: class_path and init_args of the optimizer; by default Adam at 0.001
        lr_scheduler: class_path and init_args of the learning-rate schedule; by default none
        lr_scheduler_interval: whether the schedule advances every epoch or every optimizer step
        steps_per_execution: optimizer steps in one iteration of the training loop; `auto` takes as many as it may
        compile: whether the training step is compiled by torch.compile; the subclass then has a method `loss_of`, as
            LitClassifier has, and calls `compilation.loss_of` in its `training_step`

    Attributes:
        execution: takes the steps.
        compilation: compiles the steps; None if they are not compiled.
        loss: mean loss () of the newest optimizer step, with the weights before it.
        grad_norm: norm () of all gradients before the newest clipping in mixed precision; None without one.
        train_means: loss and accuracy of the steps of this epoch.

    Raises:
        RequestError: steps_per_execution is less than 1.
    """

    once_per_execution = True  # its own batch hooks

    def __init__(
        self,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        steps_per_execution: int | Literal["auto"] = AUTO,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if steps_per_execution != AUTO and steps_per_execution < 1:
            raise RequestError(f"model.steps_per_execution is {steps_per_execution}; it must be at least 1.")
        self.optimizer_init, self.lr_scheduler_init = {"init_args": {}, **(optimizer or ADAM)}, lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.execution = Execution(self, steps_per_execution)
        self.compilation = Compilation(cast(CompilableModule, self)) if compile else None
        self.train_means = EpochMeans()
        self.loss: Tensor
        self.grad_norm: Tensor | None = None
        self.continues_epoch = False  # whether the next batch is the first of a resumed epoch

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's other options would only weaken the checks
        cls, checkpoint_path: str | Path, **hparams: Any
    ) -> Self:
        """Create the module of a checkpoint on the CPU. Code in the file is never run.

        Args:
            checkpoint_path: path of the checkpoint file.
            hparams: hyperparameters that override those of the checkpoint.

        Raises:
            RequestError: the file is damaged, is not a checkpoint, or has weights that are not finite.
        """
        checkpoint = checkpoint_files.read(Path(checkpoint_path))
        saved = trusted_settings(Path(checkpoint_path), checkpoint["hyper_parameters"], is_given=hparams.__contains__)
        module = cls(**{**saved, **hparams})
        module.load_state_dict(checkpoint["state_dict"])
        return module

    def record_step(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep the results of a training step, for the logs and for the means of the epoch.

        If the optimizer computes the loss of a step several times, such as LBFGS, the first call counts. The host does
        not wait for the device.

        Args:
            loss: mean loss ().
            logits: (N, classes).
            labels: (N,).
        """
        loss = loss.detach()
        if self.train_means.update(loss, logits.detach(), labels):
            self.loss = loss

    def optimizer_settings(self) -> dict[str, Any]:
        """Return class_path and init_args of the optimizer of a fit, with `fused` where the class takes it."""
        return with_fused(self.optimizer_init, self.trainer.strategy.root_device.type)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        self.execution.check(self.trainer)
        if self.compilation is not None:
            self.compilation.check(self.trainer)
        check_closure(self.optimizer_init["class_path"], self.trainer)
        return make_optimizers(
            self.parameters(), self.optimizer_settings(), self.lr_scheduler_init, self.lr_scheduler_interval
        )

    def on_train_start(self) -> None:
        self.execution.start()
        if self.compilation is not None:
            self.compilation.start()
        # a callback may set it at the start of an epoch, which a run that resumes within an epoch does not see
        self.trainer.accumulate_grad_batches = batches_of_step(self.trainer, self.trainer.current_epoch)

    def on_train_end(self) -> None:
        self.execution.end()
        if self.compilation is not None:
            self.compilation.end()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        plugin = self.trainer.precision_plugin
        if not gradient_clip_val:
            return
        if isinstance(plugin, MixedPrecision):
            self.grad_norm = clip_gradients(plugin, optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.continues_epoch:  # even with batch 0, if the batches are larger now than all images that are done
            self.continues_epoch = False
            align_logged_step(self.trainer)
        elif batch_idx == 0:
            self.train_means.reset()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        self.execution.run(optimizer, cast(Closure, optimizer_closure))
        # only in the step of a log row, because self.log costs more than the step itself
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train_loss_step", self.loss, prog_bar=True)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        # a schedule that advances every step does not advance in a skipped step, if the host knows that it was skipped
        intervals = {config.interval for config in self.trainer.lr_scheduler_configs if config.scheduler is scheduler}
        if intervals == {"epoch"} or not newest_step_was_skipped(self.trainer):
            super().lr_scheduler_step(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rows = self.train_means.rows()
        checkpoint["train_means"] = torch.as_tensor(self.all_gather(rows)).reshape(-1, *rows.shape).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._load_means(checkpoint.get("train_means"))
        if self.trainer.state.fn == TrainerFn.FITTING and "loops" in checkpoint:
            use_trained_weights(self.trainer, checkpoint)
            batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            self.continues_epoch = not batches["is_last_batch"] and batches["current"]["processed"] > 0
            self.convert_position(checkpoint)
        self.override_checkpoint(checkpoint)

    def override_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the settings of this run into the optimizer's and the schedule's state of a checkpoint.

        Raises:
            ValueError: the schedule of this run has ended by then.
        """
        settings = self.optimizer_settings()
        # see `newest_step_was_skipped`: a fused optimizer on a GPU does not tell without a wait
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        override_optimizer_state(
            checkpoint,
            settings,
            self.lr_scheduler_init,
            self.lr_scheduler_interval,
            counts_skipped=on_gpu and bool(settings["init_args"].get("fused")),
        )

    def convert_position(self, checkpoint: dict[str, Any]) -> None:
        """Let the rest of a checkpoint's epoch train on the images that are left, in batches of another size."""
        data, trainer = getattr(self.trainer, "datamodule", None), self.trainer
        saved = checkpoint.get("datamodule_hyper_parameters", {}).get("batch_size")
        if not isinstance(data, ClassificationDataModule) or saved is None or trainer.overfit_batches:  # type: ignore[attr-defined]
            return
        limit = trainer.limit_train_batches
        now = Batches(data.batch_size, trainer.world_size, len(data.split()[0]), None if limit == 1.0 else limit)
        rows = checkpoint.get("train_means")
        processes = trainer.world_size if rows is None else len(rows)
        convert_position(checkpoint, type(data).__qualname__, saved, processes, now)

    def _load_means(self, rows: Tensor | None) -> None:
        """Load the rows of this process from those of all processes, (processes, steps, 3)."""
        if rows is None:
            return
        if len(rows) != self.trainer.world_size:  # from another number of processes: all rows to the first process
            rows = rows.reshape(1, -1, rows.shape[-1])
            rows = torch.cat([rows, torch.zeros(self.trainer.world_size - 1, *rows.shape[1:])])
        self.train_means.load(rows[self.trainer.global_rank].to(self.device))
