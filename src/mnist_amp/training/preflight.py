"""The callback that tries a fit before anything is written, so that a wrong request leaves no files."""

import copy
import math
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.errors import RequestError, warn
from mnist_amp.runs import checkpoint_contents
from mnist_amp.training import schedules
from mnist_amp.training.accumulation import batches_of_step, check_accumulation, newest_change
from mnist_amp.training.averaged_weights import check_start
from mnist_amp.training.gradient_scaler import scaler_of
from mnist_amp.training.precision import effective_precision
from mnist_amp.training.resumable_module import ResumableModule
from mnist_amp.wording import counted


class Preflight(Callback):
    """Creates the optimizer, its schedule and the loaders, and takes a step, before the run folder is created.

    The weights stay as they are. The Trainer creates an optimizer and loaders of its own later.

    Args:
        checkpoint: path and content of the checkpoint that the run resumes from; its optimizer state is tried as well.

    Raises:
        RequestError: in `setup`; the optimizer, its schedule, the loaders or the checkpoint can't be used.
    """

    def __init__(self, checkpoint: tuple[str, dict[str, Any]] | None = None) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_start(trainer)
        check_accumulation(trainer)
        _try(trainer, pl_module, self.checkpoint)


def _try(trainer: Trainer, pl_module: LightningModule, checkpoint: tuple[str, dict[str, Any]] | None) -> None:
    if effective_precision(trainer) == "16-true" and trainer.strategy.root_device.type == "cpu":
        raise RequestError(
            "trainer.precision is 16-true. On a CPU the loss then becomes NaN at once, because Adam's smallest numbers "
            "are zero in fp16. Use bf16-true, or fp16 with a GradScaler: --config configs/fp16-cpu.yaml."
        )
    try:
        made: Any = pl_module.configure_optimizers()
        if "lr_scheduler" in made and not isinstance(made["lr_scheduler"]["scheduler"], ReduceLROnPlateau):
            made["optimizer"].step(_no_loss)  # without gradients it changes nothing
            made["lr_scheduler"]["scheduler"].step()
        scaled = scaler_of(trainer) is not None
        _try_steps(made["optimizer"], "the optimizer can't be used", None, scaled)
        if checkpoint is not None:
            path, saved = checkpoint
            problem = f"{path} is damaged: the state of its optimizer can't be loaded"
            _try_steps(made["optimizer"], problem, saved, scaled)
        trainer.fit_loop.setup_data()
        overridden = None if checkpoint is None else copy.deepcopy(checkpoint[1])
        if overridden is not None and isinstance(pl_module, ResumableModule):
            pl_module.convert_position(overridden)
        if "lr_scheduler" in made:
            _check_length(trainer, overridden, **made["lr_scheduler"])
        if checkpoint is not None and overridden is not None and isinstance(pl_module, ResumableModule):
            pl_module.override_checkpoint(overridden)
            # for example Adam's amsgrad
            problem = (
                f"the overridden settings of the optimizer need more state than {checkpoint[0]} has; leave them out"
            )
            _try_steps(made["optimizer"], problem, overridden, scaled)
    except ArithmeticError as error:
        raise RequestError(f"the optimizer or its schedule can't be used: {error}.") from error
    except (ValueError, MisconfigurationException) as error:
        raise RequestError(" ".join(str(error).split())) from error


def _check_length(
    trainer: Trainer, checkpoint: dict[str, Any] | None, scheduler: Any, interval: str, monitor: str | None
) -> None:
    """Refuse a schedule that ends before the run does; warn of a rate that will rise again."""
    steps = planned_steps(trainer, interval, checkpoint)
    unit, name = ("epoch" if interval == "epoch" else "optimizer step"), type(scheduler).__name__
    length = f"the run takes {counted(int(steps), unit)}" if steps < math.inf else "the run has no end"
    if (end := schedules.last_step(scheduler)) < steps:
        raise RequestError(
            f"the schedule {name} ends after {counted(int(end), unit)}, but {length}. "
            "Give the schedule as many steps (OneCycleLR: total_steps), or train for less."
        )
    if (point := schedules.turning_point(scheduler, steps)) is not None:
        warn(
            f"the learning rate of {name} rises again after {counted(point, unit)}, because {length}. "
            "For a rate that falls to the end, set T_max to the length of the run."
        )


def planned_steps(trainer: Trainer, interval: str, checkpoint: dict[str, Any] | None = None) -> float:
    """Return the number of epochs, or of optimizer steps, that a run has taken when it ends.

    Infinity without a limit.

    Args:
        trainer: with its data.
        interval: `epoch` or `step`.
        checkpoint: that the run resumes from; its steps may be of another size.
    """
    epochs = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs)
    limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
    epoch, steps = _done(trainer, checkpoint)
    while epoch < min(epochs, newest_change(trainer)) and steps < limit:
        steps += _steps_of(trainer, epoch)
        epoch += 1
    per_epoch, left = _steps_of(trainer, epoch), epochs - epoch
    if limit < math.inf:
        left = min(left, math.ceil((limit - steps) / per_epoch))
    return epoch + left if interval == "epoch" else min(steps + left * per_epoch, limit)


def _steps_of(trainer: Trainer, epoch: int) -> int:
    return max(math.ceil(trainer.num_training_batches / batches_of_step(trainer, epoch)), 1)


def _done(trainer: Trainer, checkpoint: dict[str, Any] | None) -> tuple[int, int]:
    """Return the complete epochs, and the optimizer steps before the epoch that has begun, as it would be now."""
    if checkpoint is None:
        return 0, 0
    done, batches = (
        checkpoint_contents.progress(checkpoint),
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"],
    )
    processed = 0 if batches["is_last_batch"] else batches["current"].get("processed", 0)
    return done.epochs, done.step - processed // batches_of_step(trainer, done.epochs)


def _try_steps(optimizer: Optimizer, problem: str, checkpoint: dict[str, Any] | None, is_scaled: bool) -> None:
    """Take a step, with the optimizer's state of a checkpoint if one is given; then restore the weights.

    State of a wrong shape would crash the process in the first step of the fit.

    Raises:
        RequestError: the step fails; the message begins with `problem`.
    """
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    try:
        if checkpoint is not None:
            _load(optimizer, checkpoint["optimizer_states"][0])
        evaluations = _step(optimizer, is_scaled)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{problem}: {type(error).__name__}: {' '.join(str(error).split())[:200]}.") from error
    if evaluations == 0:
        raise RequestError(
            f"optimizer is {type(optimizer).__name__}, whose step does not call the closure that it is given. Without "
            "this call there is no loss and no gradient."
        )
    for weight, value in zip(weights, before, strict=True):
        weight.data.copy_(value)
        weight.grad = None


def _step(optimizer: Optimizer, is_scaled: bool) -> int:
    """Take a step with gradients of zero. It runs on the CPU, because the Trainer has not moved the weights yet.

    Returns:
        How often the optimizer computed the loss. If gradients are scaled, the Trainer computes it, once.
    """
    for group in optimizer.param_groups:
        group.update({"capturable": False} if "capturable" in group else {})
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    if is_scaled:
        optimizer.step()
        return 1
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return _no_loss()

    optimizer.step(closure)  # type: ignore[arg-type]
    return evaluations


def _no_loss() -> Tensor:
    return torch.zeros(())


def _load(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load a saved state into an optimizer that has taken a step, if the shapes are the same."""
    shapes = {parameter: _shapes(state) for parameter, state in optimizer.state.items()}
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        for name, shape in _shapes(state).items():
            if shapes[parameter].get(name, shape) != shape:
                raise ValueError(f"{name} has the shape {tuple(shape)}, not {tuple(shapes[parameter][name])}")


def _shapes(state: dict[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor)}
