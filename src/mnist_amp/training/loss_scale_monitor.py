"""The callback that monitors fp16 gradients: the loss scale, the skipped steps, overflow and underflow."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.errors import warn
from mnist_amp.training.gradient_scaler import CountingGradScaler, override_state, scaler_of

# checks in a row that found skipped steps before a warning; a new scaler skips a few steps until its scale fits
CHECKS = 3


class GradientMetrics(NamedTuple):
    """The metrics of the gradients of a step that are logged.

    Attributes:
        grad_norm: norm () of all gradients; infinite if they overflowed.
        fp16_underflow: share () of the nonzero gradient values that are zero in fp16, 0 to 1.
    """

    grad_norm: Tensor
    fp16_underflow: Tensor


class LossScaleMonitor(Callback):
    """Logs the effects of gradient scaling every `log_every_n_steps` optimizer steps, and only then.

    It logs `loss_scale`, `skipped_steps` (so far) and `grad_norm` (unscaled and before clipping; infinite in a skipped
    step). In a step that was not skipped it also logs `fp16_underflow`, the share of gradient values that fp16 would
    turn into zero without the scaling. It warns if steps are skipped again and again. `TerminateOnNaN` stops a run.

    The Trainer must have a `CountingGradScaler`; without one the callback does nothing:

        trainer = Trainer(precision="16-mixed", callbacks=[LossScaleMonitor()])
        gradient_scaler.install(trainer, ScalerSettings())

    Args:
        clipped: whether gradients are clipped. Then it reads them before they are clipped, by a hook within the step,
            so steps can't be captured as CUDA graphs. Otherwise it reads them after the step.
        given: settings of the scaler that override those of the checkpoint on resume.
    """

    once_per_execution = True

    def __init__(self, clipped: bool = False, given: Mapping[str, Any] | None = None) -> None:
        self.given = given or {}
        self.unclipped: GradientMetrics | None = None  # of this step, read before the gradients were clipped
        self.step = self.skipped = 0  # at the newest check
        self.checks = self.found = 0  # checks in a row that found skipped steps, and these steps
        if not clipped:
            self.on_before_optimizer_step = None  # type: ignore[assignment,method-assign]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        override_state(checkpoint.get("MixedPrecision", {}), self.given)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = scaler_of(trainer)
        self.step, self.skipped = trainer.global_step, 0 if scaler is None else scaler.skipped()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if scaler_of(trainer) is not None and _is_due(trainer, trainer.global_step + 1):
            self.unclipped = gradient_metrics(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        scaler = scaler_of(trainer)
        if scaler is None or trainer.global_step == self.step or not _is_due(trainer, trainer.global_step):
            return
        metrics = (self.unclipped or gradient_metrics(pl_module))._asdict()
        self.unclipped = None
        self._check(trainer, scaler)
        if metrics["grad_norm"].isinf():
            del metrics["fp16_underflow"]  # a fused optimizer leaves the gradients of a skipped step scaled
        pl_module.log_dict({"loss_scale": scaler.get_scale(), "skipped_steps": float(self.skipped), **metrics})

    def _check(self, trainer: Trainer, scaler: CountingGradScaler) -> None:
        steps, self.step = trainer.global_step - self.step, trainer.global_step
        before, self.skipped = self.skipped, scaler.skipped()
        new = self.skipped - before
        self.checks, self.found = (self.checks + 1, self.found + new) if new else (0, 0)
        if self.checks == CHECKS:
            warn(
                f"steps are skipped again and again because their fp16 gradients overflow: {self.found} of the last "
                f"{CHECKS * steps}. The loss scale is down to {scaler.get_scale():g}. If this continues, try a lower "
                "learning rate, gradient clipping, or bf16-mixed."
            )


def gradient_metrics(module: LightningModule) -> GradientMetrics:
    """Return the metrics of the gradients that a module has now."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    nonzero = torch.stack([gradient.count_nonzero() for gradient in gradients]).sum()
    in_fp16 = torch.stack([gradient.half().count_nonzero() for gradient in gradients]).sum()
    return GradientMetrics(
        grad_norm=torch.nn.utils.get_total_norm(gradients).nan_to_num(nan=torch.inf, posinf=torch.inf),
        fp16_underflow=(nonzero - in_fp16) / nonzero.clamp(min=1),
    )


def _is_due(trainer: Trainer, step: int) -> bool:
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and step % every == 0
