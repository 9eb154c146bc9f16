"""The callback that monitors fp16 gradients: the loss scale, the skipped steps, overflow and underflow."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_amp.errors import warn
from mnist_amp.training.clipping import is_by_value
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

    It reads the gradients after the step, so it has no hook within the step, and steps can be captured as CUDA graphs.
    If they were clipped, it needs their norm before that, `ResumableModule.grad_norm`.

    Args:
        given: settings of the scaler that override those of the checkpoint on resume.
    """

    once_per_execution = True

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.given = given or {}
        self.step = self.skipped = 0  # at the newest check
        self.checks = self.found = 0  # checks in a row that found skipped steps, and these steps

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        override_state(checkpoint.get("MixedPrecision", {}), self.given)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = scaler_of(trainer)
        self.step, self.skipped = trainer.global_step, 0 if scaler is None else scaler.skipped()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        scaler = scaler_of(trainer)
        if scaler is None or trainer.global_step == self.step or not _is_due(trainer, trainer.global_step):
            return
        metrics = metrics_before_clipping(trainer, pl_module)._asdict()
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


def metrics_before_clipping(trainer: Trainer, module: LightningModule) -> GradientMetrics:
    """Return the metrics of the gradients of the newest step before the clipping."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm: Tensor | None = getattr(module, "grad_norm", None) if trainer.gradient_clip_val else None
    if norm is None:
        return gradient_metrics(gradients)
    if not is_by_value(trainer.gradient_clip_algorithm):
        # the clipping has multiplied all of them by one number, which is 1 if they were small enough
        clipped = torch.nn.utils.get_total_norm(gradients)
        factor = torch.where(clipped > 0, norm / clipped, 1.0)
        gradients = [gradient * factor for gradient in gradients]
    return gradient_metrics(gradients)._replace(grad_norm=_finite_or_infinite(norm))


def gradient_metrics(gradients: Sequence[Tensor]) -> GradientMetrics:
    """Return the metrics of gradients."""
    nonzero = torch.stack([gradient.count_nonzero() for gradient in gradients]).sum()
    in_fp16 = torch.stack([gradient.half().count_nonzero() for gradient in gradients]).sum()
    return GradientMetrics(
        grad_norm=_finite_or_infinite(torch.nn.utils.get_total_norm(gradients)),
        fp16_underflow=(nonzero - in_fp16) / nonzero.clamp(min=1),
    )


def _finite_or_infinite(norm: Tensor) -> Tensor:
    return norm.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _is_due(trainer: Trainer, step: int) -> bool:
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and step % every == 0
