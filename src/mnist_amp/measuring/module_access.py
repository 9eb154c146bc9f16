"""All that measuring uses of this project's module and data, beyond what every LightningModule has.

Each of these additions has a Protocol here and one function that asks for it. A module without it is measured as well.
"""

from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mnist_amp.training.execution import Execution, GraphUse
from mnist_amp.training.metrics import EpochMeans


@runtime_checkable
class HasExecution(Protocol):
    """A module that can take several optimizer steps per execution, and capture them as CUDA graphs."""

    execution: Execution


@runtime_checkable
class HasTrainMeans(Protocol):
    """A module that keeps the loss of every step of an epoch."""

    train_means: EpochMeans


@runtime_checkable
class ImagesInMemory(Protocol):
    """A data module that keeps its images as a tensor on the device that trains."""

    images: Tensor


def captures_steps(module: LightningModule) -> bool:
    """Whether the steps of this fit are captured as CUDA graphs."""
    return isinstance(module, HasExecution) and module.execution.steps > 1 and module.execution.reason is None


def capture_outcome(module: LightningModule) -> GraphUse | None:
    """Return how many steps were replayed as CUDA graphs, of how many, and why not more; None if none could be."""
    return module.execution.outcome() if isinstance(module, HasExecution) else None


def epoch_losses(module: LightningModule) -> list[float] | None:
    """Return the loss of each optimizer step of the epoch so far; None if the module does not keep it."""
    return module.train_means.losses().tolist() if isinstance(module, HasTrainMeans) else None


def dataset_bytes(trainer: Trainer) -> int:
    """Return the bytes of the data set that stay on the device during a fit."""
    data = getattr(trainer, "datamodule", None)
    return data.images.nbytes if isinstance(data, ImagesInMemory) else 0
