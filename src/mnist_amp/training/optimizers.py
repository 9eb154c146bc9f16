"""The optimizer and the learning-rate schedule, created from plain values."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter

from mnist_amp.errors import RequestError
from mnist_amp.training.schedules import make_schedule

ADAM: dict[str, Any] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}


def make_optimizers(
    parameters: Iterable[Parameter],
    optimizer: dict[str, Any],
    lr_scheduler: dict[str, Any] | None,
    interval: Literal["epoch", "step"],
) -> OptimizerLRScheduler:
    """Create an optimizer and its schedule, in the form that `LightningModule.configure_optimizers` returns.

    Args:
        parameters: the parameters to optimize.
        optimizer: class_path and init_args of the optimizer.
        lr_scheduler: class_path and init_args of the learning-rate schedule; None for no schedule.
        interval: whether the schedule advances every epoch or every optimizer step.

    Raises:
        RequestError: the optimizer or its schedule does not accept these values.
    """
    try:
        made = instantiate_class(list(parameters), optimizer)
        if lr_scheduler is None:
            return {"optimizer": made}
        scheduler = make_schedule(made, lr_scheduler)
    except (ValueError, TypeError) as error:
        raise RequestError(f"the optimizer or its schedule can't be made: {error}.") from error
    monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else None
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": monitor}}


def with_fused(optimizer: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Return class_path and init_args of an optimizer, with `fused` set if the user did not choose.

    A fused optimizer is faster, and unscales fp16 gradients itself, which saves a device synchronisation per step. But
    in mixed precision Lightning can't clip the gradients of a fused optimizer, and fails only at the first step.

    Args:
        optimizer: class_path and init_args as the user gave them.
        trainer: its precision and its gradient clipping count.

    Raises:
        RequestError: the user asked for a fused optimizer and for clipping in mixed precision.
    """
    init_args = optimizer["init_args"]
    module, _, name = optimizer["class_path"].rpartition(".")
    takes_fused = "fused" in inspect.signature(getattr(importlib.import_module(module), name)).parameters
    clipped = isinstance(trainer.precision_plugin, MixedPrecision) and bool(trainer.gradient_clip_val)
    if clipped and init_args.get("fused"):
        raise RequestError(
            "optimizer.fused and trainer.gradient_clip_val can't be combined in mixed precision, because a fused "
            "optimizer unscales the gradients only after they are clipped. Leave one of them out."
        )
    chosen = init_args.get("fused") is not None or any(init_args.get(key) for key in ("foreach", "differentiable"))
    if clipped or chosen or not takes_fused:
        return optimizer
    return {**optimizer, "init_args": {**init_args, "fused": True}}
