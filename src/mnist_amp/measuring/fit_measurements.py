"""The measurements of `mnist-amp compare`: the speed of a step, and the accuracy of a complete fit."""

import gc
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import RunError
from mnist_amp.measuring.compare_records import Accuracy, MemoryUse, Speed
from mnist_amp.measuring.environment import Environment
from mnist_amp.measuring.measured_fit import ENDLESS, MeasuredFit
from mnist_amp.measuring.module_access import capture_outcome, epoch_losses
from mnist_amp.measuring.step_timer import StepTimer, StepTiming
from mnist_amp.training.gradient_scaler import scaler_of
from mnist_amp.training.precision import described_precision, device_name, half_hardware, versions
from mnist_amp.training.terminate_on_nan import TerminateOnNaN

POINTS = 100  # of a loss curve, at most


class LossCurve(Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses += epoch_losses(pl_module)

    def points(self) -> list[tuple[float, float]]:
        """Return (step, loss) for at most 100 groups of steps: the middle step, and the mean loss."""
        size = -(-len(self.losses) // POINTS) or 1
        groups = [(start, self.losses[start : start + size]) for start in range(0, len(self.losses), size)]
        return [(start + (len(group) + 1) / 2, sum(group) / len(group)) for start, group in groups]


def measure_speed(config: dict[str, Any], overrides: dict[str, Any], seconds: float) -> tuple[Speed, Environment]:
    """Time the steps of a fit for some seconds.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        seconds: how long to time.

    Raises:
        RunError: a callback of the settings ended the fit.
    """
    fit, timing = _time_steps(config, overrides, seconds)
    effective, environment, graphs = (
        described_precision(fit.trainer),
        _environment(fit.trainer),
        capture_outcome(fit.model),
    )
    del fit
    memory, not_captured = timing.memory, None
    if graphs is not None:
        not_captured = graphs.reason
        memory = _memory_without_graphs(config, overrides)
    return Speed(effective, timing.seconds, timing.steps, memory, timing.data_seconds, not_captured), environment


def _memory_without_graphs(config: dict[str, Any], overrides: dict[str, Any]) -> MemoryUse:
    """Measure steps that are not captured, because the allocator does not count the activations of a graph."""
    gc.collect()  # the previous fit
    torch.cuda.empty_cache()
    return _time_steps(config, {**overrides, "model.steps_per_execution": 1}, 0.0)[1].memory


def _time_steps(config: dict[str, Any], overrides: dict[str, Any], seconds: float) -> tuple[MeasuredFit, StepTiming]:
    timer = StepTimer(seconds)
    fit = MeasuredFit(config, overrides, [timer], **ENDLESS, limit_val_batches=0)
    if timer.timing is None:
        raise RunError("the fit ended before it was measured; leave out the callback that ends it")
    return fit, timer.timing


def measure_accuracy(config: dict[str, Any], overrides: dict[str, Any]) -> tuple[Accuracy, Environment]:
    """Run a complete fit; its accuracy is that of its last epoch.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.

    Raises:
        RunError: the loss became non-finite.
    """
    curve = LossCurve()
    fit = MeasuredFit(config, overrides, [TerminateOnNaN(None), curve])
    metrics, scaler = fit.trainer.callback_metrics, scaler_of(fit.trainer)
    name = "val_accuracy" if "val_accuracy" in metrics else "train_accuracy"
    return Accuracy(
        effective=described_precision(fit.trainer),
        accuracy=metrics[name].item(),
        of=name,
        steps=fit.trainer.global_step,
        curve=curve.points(),
        loss_scale=None if scaler is None else scaler.get_scale(),
        skipped_steps=None if scaler is None else scaler.skipped(),
    ), _environment(fit.trainer)


def _environment(trainer: Trainer) -> Environment:
    return Environment(device_name(trainer), half_hardware(trainer), versions())
