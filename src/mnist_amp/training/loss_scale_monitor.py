"""What becomes of the gradients in fp16."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.errors import warn
from mnist_amp.training.gradient_scaler import CountingGradScaler, override_state, scaler_of

LOOKS = 3  # in a row that found skipped steps, until that is worth a warning; a new scaler skips a few at first


class LossScaleMonitor(Callback):
    """Where gradients are scaled, logs what that does, every `log_every_n_steps` optimizer steps and at no other time.

    It logs `loss_scale`, `skipped_steps` (so far), `grad_norm` (unscaled, before clipping; infinite in a skipped step),
    and in a step that was taken `fp16_underflow`: the share of gradient values that fp16 would turn into zero if it
    were not for the scaling. Warns when steps are skipped again and again. What stops a run is `TerminateOnNaN`.

    Args:
        clipped: whether gradients are clipped: then it looks before they are, which a step captured as a CUDA graph
            could not do. Otherwise it looks at what a step has left.
        given: settings of the scaler that go before those of the checkpoint that a run goes on from.
    """

    def __init__(self, clipped: bool = False, given: Mapping[str, Any] | None = None) -> None:
        self.given = given or {}
        self.gradients: dict[str, Tensor] = {}  # what was seen before they were clipped
        self.skipped = self.step = self.looks = self.found = 0
        if not clipped:
            self.on_before_optimizer_step = None  # type: ignore[assignment,method-assign]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        override_state(checkpoint.get("MixedPrecision", {}), self.given)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = scaler_of(trainer)
        self.step, self.skipped = trainer.global_step, 0 if scaler is None else scaler.skipped()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if scaler_of(trainer) is not None and _is_due(trainer, trainer.global_step + 1):
            self.gradients = gradient_metrics(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        scaler = scaler_of(trainer)
        if scaler is None or trainer.global_step == self.step or not _is_due(trainer, trainer.global_step):
            return
        figures = self.gradients or gradient_metrics(pl_module)
        self.gradients = {}
        self._look(trainer, scaler)
        if figures["grad_norm"].isinf():
            del figures["fp16_underflow"]  # a fused optimizer has left them scaled
        pl_module.log_dict({"loss_scale": scaler.get_scale(), "skipped_steps": float(self.skipped), **figures})

    def _look(self, trainer: Trainer, scaler: CountingGradScaler) -> None:
        steps, self.step = trainer.global_step - self.step, trainer.global_step
        before, self.skipped = self.skipped, scaler.skipped()
        new = self.skipped - before
        self.looks, self.found = (self.looks + 1, self.found + new) if new else (0, 0)
        if self.looks == LOOKS:
            warn(
                f"steps are skipped again and again, as their fp16 gradients overflow: {self.found} of the last "
                f"{LOOKS * steps}; the loss scale is down to {scaler.get_scale():g}. If it goes on, try a lower "
                "learning rate, clipping, or bf16-mixed."
            )


def gradient_metrics(module: LightningModule) -> dict[str, Tensor]:
    """Return the norm () of the gradients, and the share () of their values, but for zeros, that are zero in fp16."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    there = torch.stack([gradient.count_nonzero() for gradient in gradients]).sum()
    left = torch.stack([gradient.half().count_nonzero() for gradient in gradients]).sum()
    return {
        "grad_norm": torch.nn.utils.get_total_norm(gradients).nan_to_num(nan=torch.inf, posinf=torch.inf),
        "fp16_underflow": (there - left) / there.clamp(min=1),
    }


def _is_due(trainer: Trainer, step: int) -> bool:
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and step % every == 0
