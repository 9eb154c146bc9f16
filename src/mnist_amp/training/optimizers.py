"""The optimizer and the learning-rate schedule, created from plain values."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter

from mnist_amp.errors import RequestError
from mnist_amp.training.accumulation import accumulates
from mnist_amp.training.schedules import make_schedule

FUSED_ON_CPU = (torch.optim.Adagrad,)  # torch 2.11 refuses to run its fused form on CUDA
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


def with_fused(optimizer: dict[str, Any], device: str) -> dict[str, Any]:
    """Return class_path and init_args of an optimizer, with `fused` set if the user did not choose.

    A fused optimizer is faster. With fp16 gradients it decides on the device whether to skip a step, which saves a
    device synchronisation per step.

    >>> with_fused({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}, "cuda")["init_args"]
    {'lr': 0.1, 'fused': True}

    Args:
        optimizer: class_path and init_args as the user gave them.
        device: the type of the device that trains.
    """
    init_args, kind = optimizer["init_args"], class_of(optimizer["class_path"])
    takes_fused = "fused" in inspect.signature(kind).parameters and (device == "cpu" or kind not in FUSED_ON_CPU)
    chosen = init_args.get("fused") is not None or any(init_args.get(key) for key in ("foreach", "differentiable"))
    if chosen or not takes_fused:
        return optimizer
    return {**optimizer, "init_args": {**init_args, "fused": True}}


def check_closure(class_path: str, trainer: Trainer) -> None:
    """Check that the settings of a Trainer go with an optimizer that computes the loss several times in a step.

    torch marks such an optimizer, for example LBFGS, in the signature of its `step`: the closure has no default.

    Args:
        class_path: of the optimizer.
        trainer: its precision, its processes and its accumulation of gradients count.

    Raises:
        RequestError: gradients are scaled or accumulated, or there are several processes.
    """
    closure = inspect.signature(class_of(class_path).step).parameters.get("closure")
    if closure is None or closure.default is not closure.empty:
        return
    problem = None
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        # the scaler decides once in a step whether to skip it, and then changes the scale
        problem = "can't be done with a GradScaler. Use --trainer.precision bf16-mixed or 32-true"
    elif accumulates(trainer):
        # Lightning would compute the last of the batches again, and add its gradients each time
        problem = "can't be done with gradients accumulated over batches. Use a larger data.batch_size"
    elif trainer.world_size > 1:
        # each process would search by the loss of its own images, and some would wait for the others without end
        problem = "can't be done by several processes together. Use one device"
    if problem is not None:
        name = class_path.rpartition(".")[2]
        raise RequestError(f"optimizer is {name}, which computes the loss several times in a step. This {problem}.")


def cycles_momentum(schedule: dict[str, Any] | None) -> bool:
    """Whether a schedule changes the momentum (of Adam, the first beta) and not the learning rate alone.

    >>> cycles_momentum({"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1}})
    True

    Args:
        schedule: class_path and init_args; None for no schedule.
    """
    if schedule is None:
        return False
    init_args = schedule.get("init_args", {})
    parameter = inspect.signature(class_of(schedule["class_path"])).parameters.get("cycle_momentum")
    own = parameter is not None and init_args.get("cycle_momentum", parameter.default)
    return bool(own) or any(map(cycles_momentum, init_args.get("schedulers", [])))


def class_of(class_path: str) -> Any:
    """Return the class of a class_path."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
