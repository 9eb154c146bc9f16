"""All that measuring needs of a module, a batch or a data module beyond Lightning's own interface.

The rest of `mnist_amp.measuring` uses what every LightningModule has. Each of this project's additions has a Protocol
here and one function that asks for it, so that another module needs only another answer in this file.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

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
class ComputesLoss(Protocol):
    """A module that computes the loss of a batch without logging or keeping anything."""

    def loss_of(self, batch: Any) -> Any: ...


@runtime_checkable
class ImageBatch(Protocol):
    """A batch of images (N, ...) and labels (N,)."""

    images: Tensor
    labels: Tensor


@runtime_checkable
class ImagesInMemory(Protocol):
    """A data module that keeps its images as a tensor on the device that trains."""

    images: Tensor


@runtime_checkable
class Resumes(Protocol):
    """A loader that begins at a position, (epoch, images done), which it asks for."""

    position: Callable[[], tuple[int, int]]


def captures_steps(module: LightningModule) -> bool:
    """Whether the steps of this fit are captured as CUDA graphs."""
    return isinstance(module, HasExecution) and module.execution.steps > 1 and module.execution.reason is None


def capture_outcome(module: LightningModule) -> GraphUse | None:
    """Return how many steps were replayed as CUDA graphs, of how many, and why not more; None if none could be."""
    return module.execution.outcome() if isinstance(module, HasExecution) else None


def epoch_losses(module: LightningModule) -> list[float]:
    """Return the loss of each optimizer step of the epoch so far."""
    assert isinstance(module, HasTrainMeans)
    losses: list[float] = module.train_means.losses().tolist()
    return losses


def network_of(module: LightningModule) -> nn.Module:
    """Return the network that the module holds as `model`, or else the module itself."""
    network = getattr(module, "model", None)  # a Protocol would not find it: a module's __getattr__ does
    return network if isinstance(network, nn.Module) else module


def compute_loss(module: LightningModule, batch: Any) -> None:
    """Run the forward pass and the loss of a batch, and nothing else."""
    assert isinstance(module, ComputesLoss)
    module.loss_of(batch)


def images_of(batch: Any) -> Tensor:
    """Return the images of a batch, (N, ...)."""
    assert isinstance(batch, ImageBatch)
    return batch.images


def labels_of(batch: Any) -> Tensor:
    """Return the labels of a batch, (N,)."""
    assert isinstance(batch, ImageBatch)
    return batch.labels


def dataset_bytes(trainer: Trainer) -> int:
    """Return the bytes of the data set that stay on the device during a fit."""
    data = getattr(trainer, "datamodule", None)
    return data.images.nbytes if isinstance(data, ImagesInMemory) else 0


def batches_from_start(trainer: Trainer) -> Iterator[Any]:
    """Yield the training batches of the first epoch from its start, after training has ended."""
    loader: Any = trainer.train_dataloader
    if isinstance(loader, Resumes):
        loader.position = lambda: (0, 0)  # or it would begin where training is
    yield from loader
