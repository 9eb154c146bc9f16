"""The measurements of `mnist-amp compare`: the speed of a step, its profile, and the metric of a complete fit.

Each runs in a process of its own, see `isolated_process`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring.compare_records import TRAIN_LOSS, Score, Speed
from mnist_amp.measuring.environment import Environment
from mnist_amp.measuring.measured_fit import ENDED, ENDLESS, MeasuredFit
from mnist_amp.measuring.module_access import capture_outcome, compile_outcome, epoch_losses
from mnist_amp.measuring.profile_records import Profile
from mnist_amp.measuring.step_profile import Amounts, measure_profile
from mnist_amp.measuring.step_timer import StepTimer
from mnist_amp.training.gradient_scaler import scaler_of
from mnist_amp.training.precision import described_precision, device_name, half_hardware, versions
from mnist_amp.wording import listed

POINTS = 100  # of a loss curve, at most
CHECK_EVERY = 200  # batches between two checks of the loss, for which the host waits for the device
LAST = 0.1  # share of the steps whose mean loss is the training loss at the end
STEPS = Amounts(steps=25, warmup=20, gradient_steps=3)  # of a profile within a comparison
ONE_BATCH: dict[str, Any] = {
    **{"max_epochs": 1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None},
    **{"limit_train_batches": 1, "limit_val_batches": 1, "overfit_batches": 0.0, "val_check_interval": 1},
    **{"check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "fast_dev_run": False, "barebones": False},
}


class Trial(NamedTuple):
    """The result of a fit on one batch.

    Attributes:
        metrics: names of the metrics that the module logs.
        validation: those that it logs in validation.
        has_loss: whether `training_step` returns the loss.
    """

    metrics: list[str]
    validation: list[str]
    has_loss: bool


class _ValidationMetrics(Callback):
    """Keeps the names of the metrics that a validation adds."""

    def __init__(self) -> None:
        self.before: set[str] = set()
        self.names: list[str] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.names = [name for name in trainer.callback_metrics if name not in self.before]


class LossCurve(Callback):
    """Keeps the loss of every step, and ends a fit whose loss is not finite.

    Manual optimization returns no loss, unless `training_step` returns it.

    Raises:
        RunError: from the training loop.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.new: list[Tensor] = []  # of this epoch, on the device

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.new.append(loss.detach().float().reshape(()))
            if len(self.new) % CHECK_EVERY == 0:
                self._check(float(self.new[-1]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept = epoch_losses(pl_module)
        found = torch.stack(self.new).tolist() if self.new and kept is None else kept or []
        self.losses, self.new = self.losses + found, []
        for loss in found:
            self._check(loss)

    def points(self) -> list[tuple[float, float]]:
        """Return (step, loss) for at most 100 groups of steps: the middle step, and the mean loss."""
        size = -(-len(self.losses) // POINTS) or 1
        groups = [(start, self.losses[start : start + size]) for start in range(0, len(self.losses), size)]
        return [(start + (len(group) + 1) / 2, sum(group) / len(group)) for start, group in groups]

    def end(self) -> float:
        """Return the mean loss of the last tenth of the steps.

        Raises:
            RunError: there is no loss.
        """
        last = self.losses[-max(round(LAST * len(self.losses)), 1) :]
        if not last:
            raise RunError("the module logs no metric, and training_step returns no loss; log a metric with self.log")
        return sum(last) / len(last)

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(f"the loss is {loss:g} in one of its first {len(self.losses) + len(self.new):,} steps")


def try_fit(config: dict[str, Any], overrides: dict[str, Any]) -> Trial:
    """Train and validate on one batch.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
    """
    validation, curve = _ValidationMetrics(), LossCurve()
    fit = MeasuredFit(config, overrides, [validation, curve], **ONE_BATCH)
    if fit.model.automatic_optimization and not curve.losses:
        raise RequestError(f"training_step of {type(fit.model).__name__} returns no loss, so nothing is trained.")
    return Trial(list(fit.trainer.callback_metrics), validation.names, bool(curve.losses))


def measure_speed(config: dict[str, Any], overrides: dict[str, Any], seconds: float) -> tuple[Speed, Environment]:
    """Time the steps of a fit for some seconds.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        seconds: how long to time.

    Raises:
        RunError: a callback of the settings ended the fit.
    """
    timer = StepTimer(seconds)
    fit = MeasuredFit(config, overrides, [timer], **ENDLESS, limit_val_batches=1)
    if timer.timing is None:
        raise RunError(ENDED)
    timing, graphs, compiled = timer.timing, capture_outcome(fit.model), compile_outcome(fit.model)
    return Speed(
        effective=described_precision(fit.trainer),
        seconds=timing.seconds,
        steps=timing.steps,
        waiting_seconds=timing.waiting_seconds,
        not_captured=None if graphs is None else graphs.reason,
        compiled=None if compiled is None else compiled.what,
        compile_seconds=None if compiled is None else compiled.seconds,
    ), _environment(fit.trainer)


def measure_step(config: dict[str, Any], overrides: dict[str, Any], seconds: float) -> tuple[Profile, Environment]:
    """Profile single steps of a fit, for about `seconds` each with and without marks; see `measure_speed`."""
    profile, fit = measure_profile(config, overrides, STEPS._replace(seconds=seconds))
    return profile, _environment(fit.trainer)


def measure_score(config: dict[str, Any], overrides: dict[str, Any], metric: str) -> tuple[Score, Environment]:
    """Run a complete fit; its score is the metric after its last epoch.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        metric: as the module logs it, or `TRAIN_LOSS`.

    Raises:
        RunError: the loss became non-finite.
        RequestError: the module does not log the metric.
    """
    curve = LossCurve()
    fit = MeasuredFit(config, overrides, [curve])
    metrics, scaler = fit.trainer.callback_metrics, scaler_of(fit.trainer)
    if metric != TRAIN_LOSS and metric not in metrics:
        raise RequestError(f"the module logs no {metric} in this fit. It logs {listed(list(metrics)) or 'nothing'}.")
    value = curve.end() if metric == TRAIN_LOSS else float(metrics[metric])
    if not math.isfinite(value):
        raise RunError(f"{metric} is {value:g} at the end")
    return Score(
        effective=described_precision(fit.trainer),
        value=value,
        steps=fit.trainer.global_step,
        curve=curve.points(),
        loss_scale=None if scaler is None else scaler.get_scale(),
        skipped_steps=None if scaler is None else scaler.skipped(),
    ), _environment(fit.trainer)


def _environment(trainer: Trainer) -> Environment:
    return Environment(device_name(trainer), half_hardware(trainer), versions())
