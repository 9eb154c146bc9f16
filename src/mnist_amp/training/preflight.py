"""The callback that tries a fit before anything is written, so that a wrong request leaves no files."""

from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import Optimizer

from mnist_amp.errors import RequestError
from mnist_amp.training.precision import effective_precision


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
            made["optimizer"].step()  # without gradients it changes nothing
            made["lr_scheduler"]["scheduler"].step()
        _try_steps(made["optimizer"], checkpoint)
        trainer.fit_loop.setup_data()
    except ArithmeticError as error:
        raise RequestError(f"the optimizer or its schedule can't be used: {error}.") from error
    except (ValueError, MisconfigurationException) as error:
        raise RequestError(" ".join(str(error).split())) from error


def _try_steps(optimizer: Optimizer, checkpoint: tuple[str, dict[str, Any]] | None) -> None:
    """Take a step with new state, and a step with the state of the checkpoint; then restore the weights.

    State of a wrong shape would crash the process in the first step of the fit.
    """
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    try:
        problem = "the optimizer can't be used"
        _step(optimizer)
        if checkpoint is not None:
            path, saved = checkpoint
            problem = f"{path} is damaged: the state of its optimizer can't be loaded"
            _load(optimizer, saved["optimizer_states"][0])
            _step(optimizer)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{problem}: {type(error).__name__}: {' '.join(str(error).split())[:200]}.") from error
    for weight, value in zip(weights, before, strict=True):
        weight.data.copy_(value)
        weight.grad = None


def _step(optimizer: Optimizer) -> None:
    """Take a step with gradients of zero. It runs on the CPU, because the Trainer has not moved the weights yet."""
    for group in optimizer.param_groups:
        group.update({"capturable": False} if "capturable" in group else {})
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type,return-value]


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
