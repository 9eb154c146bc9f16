"""A run that has gone wrong beyond repair is stopped, before it overwrites what was good."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import RunError
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.training.gradient_scaler import scaler_of
from mnist_amp.training.metrics import EpochMeans
from mnist_amp.training.precision import effective_precision

PATIENCE = 20  # optimizer steps skipped in a row; a new GradScaler skips a few until its scale fits
MIN_SCALE = 1e-4  # fairseq's: so far below 1, scaling would push the gradients towards zero


class TerminateOnNaN(Callback):
    """Ends a run at the first loss or weight that is not finite, or when a GradScaler skips every
    step or its scale has collapsed.

    Looks every `log_every_n_steps` optimizer steps, at an epoch's end and before a checkpoint is written, as to look is
    to wait for the device; the message names the very step all the same.

    Args:
        checkpoint: which has the checkpoint to go back to; None if the run keeps none.

    Raises:
        RunError: from the training loop; nothing that is not finite was saved.
    """

    def __init__(self, checkpoint: RunCheckpoint | None) -> None:
        self.checkpoint = checkpoint
        self.steps: list[int] = []  # whose losses were not looked at yet
        self.step = self.skipped = self.in_a_row = self.seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = scaler_of(trainer)
        self.step, self.skipped = trainer.global_step, 0 if scaler is None else scaler.skipped()
        self.seen = len(_means(trainer).images)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen = self.seen if batch_idx else 0
        new = len(_means(trainer).images) - self.seen  # several, where several steps are taken at once
        self.seen += new
        self.steps += range(trainer.global_step - new + 1, trainer.global_step + 1)
        every = trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if trainer.global_step >= self.step + every:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)
        non_finite = [name for name, value in checkpoint["state_dict"].items() if not value.isfinite().all()]
        if non_finite:
            self._end(
                trainer, f"step {trainer.global_step:,} made weights that are not finite ({', '.join(non_finite)})"
            )

    def _check(self, trainer: Trainer) -> None:
        steps, self.steps = self.steps, []
        losses = _means(trainer).rows()[self.seen - len(steps) : self.seen, 0]
        finite = losses.isfinite().tolist() if steps else []
        bad = next((step for step, good in zip(steps, finite, strict=True) if not good), 0)
        if trainer.world_size > 1:
            bad = int(trainer.strategy.reduce(torch.tensor(bad, device=trainer.strategy.root_device), reduce_op="max"))
        if bad:
            self._end(trainer, f"the loss of step {bad:,} is not finite")
        self._check_scale(trainer)

    def _check_scale(self, trainer: Trainer) -> None:
        scaler, steps = scaler_of(trainer), trainer.global_step - self.step
        self.step = trainer.global_step
        if scaler is None or not steps:
            return
        before, self.skipped = self.skipped, scaler.skipped()
        self.in_a_row = self.in_a_row + steps if self.skipped - before == steps else 0
        if self.in_a_row >= PATIENCE:
            self._end(trainer, f"the last {self.in_a_row} steps were all skipped, as their fp16 gradients overflowed")
        if scaler.get_scale() < MIN_SCALE:
            self._end(
                trainer,
                f"the loss scale has collapsed to {scaler.get_scale():.2g}, as the fp16 gradients of {self.skipped:,} "
                f"of {trainer.global_step:,} steps overflowed",
            )

    def _end(self, trainer: Trainer, what: str) -> None:
        saved = trainer.ckpt_path
        go_on = f"mnist-amp fit{f' --ckpt_path {saved}' if saved else ''}"
        if self.checkpoint and self.checkpoint.last.is_file():
            saved, go_on = self.checkpoint.last, self.checkpoint.resume_command()
        rate, precision = float(trainer.optimizers[0].param_groups[0]["lr"]), effective_precision(trainer)
        raise RunError(
            f"{what}; the run is stopped. "
            f"{f'The last good checkpoint is {saved}' if saved else 'There is no checkpoint yet'}. "
            f"Likely causes: too high a learning rate (it is {rate:g}; try a tenth), gradients that need clipping"
            f"{', or numbers beyond fp16 (try bf16-mixed or 32-true)' if precision.startswith('16') else ''}. "
            f"Go on with: {go_on} --optimizer.lr {rate / 10:g}"
        )


def _means(trainer: Trainer) -> EpochMeans:
    return cast(EpochMeans, trainer.lightning_module.train_means)
