"""The callback that stops a fit which can't recover, before it overwrites a good checkpoint."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import RunError
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.training.gradient_scaler import scaler_of
from mnist_amp.training.metrics import EpochMeans
from mnist_amp.training.precision import effective_precision

PATIENCE = 20  # skipped optimizer steps in a row; a new GradScaler skips a few until its scale fits
MIN_SCALE = 1e-4  # fairseq's value; such a scale would push the gradients towards zero


class TerminateOnNaN(Callback):
    """Stops a fit at the first loss or weight that is not finite, or when gradient scaling has failed.

    Gradient scaling has failed if 20 steps in a row were skipped, or if the loss scale has fallen below 1e-4.

    The host must wait for the device to check. So the callback checks every `log_every_n_steps` optimizer steps, at the
    end of an epoch and before a checkpoint is written. The message names the first step whose loss is not finite all
    the same, because the module, a `ResumableModule`, keeps the losses of all steps of an epoch:

        Trainer(callbacks=[TerminateOnNaN()]).fit(LitClassifier(), ClassificationDataModule())

    Args:
        checkpoint: the callback that writes the checkpoints of the run, to name the last one; None if there is none.

    Raises:
        RunError: from the training loop. No weights that are not finite were saved.
    """

    once_per_execution = True

    def __init__(self, checkpoint: RunCheckpoint | None = None) -> None:
        self.checkpoint = checkpoint
        self.unchecked: list[int] = []  # steps
        self.seen = 0  # steps of this epoch
        self.step = self.skipped = 0  # at the newest check of the scale
        self.in_a_row = 0  # skipped steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = scaler_of(trainer)
        self.step, self.skipped = trainer.global_step, 0 if scaler is None else scaler.skipped()
        self.seen = len(_means(trainer).images)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen = self.seen if batch_idx else 0
        new = len(_means(trainer).images) - self.seen  # more than 1 with several steps per execution
        self.seen += new
        self.unchecked += range(trainer.global_step - new + 1, trainer.global_step + 1)
        every = trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if trainer.global_step >= self.step + every:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)
        non_finite = [name for name, value in checkpoint["state_dict"].items() if not value.isfinite().all()]
        if non_finite:
            names = ", ".join(non_finite)
            self._stop(trainer, f"the weights are not finite after step {trainer.global_step:,} ({names})")

    def _check(self, trainer: Trainer) -> None:
        steps, self.unchecked = self.unchecked, []
        losses = _means(trainer).losses()[self.seen - len(steps) : self.seen]
        finite = losses.isfinite().tolist() if steps else []
        bad = next((step for step, good in zip(steps, finite, strict=True) if not good), 0)
        if trainer.world_size > 1:
            bad = int(trainer.strategy.reduce(torch.tensor(bad, device=trainer.strategy.root_device), reduce_op="max"))
        if bad:
            self._stop(trainer, f"the loss of step {bad:,} is not finite")
        self._check_scale(trainer)

    def _check_scale(self, trainer: Trainer) -> None:
        scaler, steps = scaler_of(trainer), trainer.global_step - self.step
        self.step = trainer.global_step
        if scaler is None or not steps:
            return
        before, self.skipped = self.skipped, scaler.skipped()
        self.in_a_row = self.in_a_row + steps if self.skipped - before == steps else 0
        if self.in_a_row >= PATIENCE:
            self._stop(
                trainer, f"the last {self.in_a_row} steps were all skipped because their fp16 gradients overflowed"
            )
        if scaler.get_scale() < MIN_SCALE:
            self._stop(
                trainer,
                f"the loss scale has collapsed to {scaler.get_scale():.2g} because the fp16 gradients of "
                f"{self.skipped:,} of {trainer.global_step:,} steps overflowed",
            )

    def _stop(self, trainer: Trainer, problem: str) -> None:
        saved = trainer.ckpt_path
        command = f"mnist-amp fit{f' --ckpt_path {saved}' if saved else ''}"
        if self.checkpoint and self.checkpoint.last.is_file():
            saved, command = self.checkpoint.last, self.checkpoint.resume_command()
        rate, causes = float(trainer.optimizers[0].param_groups[0]["lr"]), "gradients that need clipping"
        if effective_precision(trainer).startswith("16"):
            causes += ", or numbers out of fp16's range (try bf16-mixed or 32-true)"
        raise RunError(
            f"{problem}; the run is stopped. "
            f"{f'The last good checkpoint is {saved}' if saved else 'There is no checkpoint yet'}. "
            f"Likely causes: a learning rate that is too high ({rate:g}; try a tenth), {causes}. "
            f"{'Resume' if saved else 'Start again'} with: {command} --optimizer.lr {rate / 10:g}"
        )


def _means(trainer: Trainer) -> EpochMeans:
    return cast(EpochMeans, trainer.lightning_module.train_means)
