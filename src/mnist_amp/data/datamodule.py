"""MNIST as a LightningDataModule."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from mnist_amp.data import mnist
from mnist_amp.data.loader import Batch, SequentialLoader, ShuffledLoader, generator
from mnist_amp.errors import RequestError
from mnist_amp.number_types import Seed, number_type

if TYPE_CHECKING:
    BatchSize: TypeAlias = int
    ValSize: TypeAlias = int
else:
    BatchSize = number_type(f"int from 1 to {mnist.TRAIN_SIZE}", int, (">=", 1), ("<=", mnist.TRAIN_SIZE))
    ValSize = number_type(f"int from 0 to {mnist.TRAIN_SIZE - 1}", int, (">=", 0), ("<", mnist.TRAIN_SIZE))


class MemoryDataModule(LightningDataModule):
    """Images that are kept in memory, on the device that uses them.

    Attributes:
        images: (N, 28, 28) uint8.
        labels: (N,) int64.
        batch_size: images per batch and process.
    """

    images: Tensor
    labels: Tensor
    batch_size: int

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch unchanged: its images are on the device already."""
        return batch

    def predict_dataloader(self) -> SequentialLoader:
        return self.sequential(torch.arange(len(self.labels)))

    def sequential(self, indices: Tensor) -> SequentialLoader:
        """Return a loader that evaluates the images at these indices."""
        assert self.trainer is not None
        return SequentialLoader(
            self.images, self.labels, indices, self.batch_size, self.trainer.global_rank, self.trainer.world_size
        )


IMAGES_AHEAD = "images_ahead"


class MNISTDataModule(MemoryDataModule):
    """MNIST, kept as uint8 on the device that trains, and normalised there.

    Validation images are held out of the 60,000 training images. The 10,000 test images are for `test` and `predict`.

    Args:
        data_dir: folder for the unpacked images, created if it is missing; torchvision calls it `root`. Its folders
            MNIST and MNIST/raw mean the same, if they hold the files
        batch_size: images per batch and process
        val_size: training images held out for validation; 0 trains on all 60,000
        seed: seed of the order of the images and of the split; the default is the seed of seed_everything

    Raises:
        RequestError: a size is out of range.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from mnist_amp.module import LitSimpleNN
        >>> data = MNISTDataModule(batch_size=32, val_size=1000)
        >>> Trainer(max_epochs=1).fit(LitSimpleNN(), data)  # doctest: +SKIP
    """

    def __init__(
        self, data_dir: str = "data", batch_size: BatchSize = 64, val_size: ValSize = 5000, seed: Seed | None = None
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise RequestError(f"data.batch_size is {batch_size}; it must be at least 1.")
        if not 0 <= val_size < mnist.TRAIN_SIZE:
            raise RequestError(
                f"data.val_size is {val_size}; it must be at least 0 and leave some of the {mnist.TRAIN_SIZE:,} images "
                "to train on."
            )
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.data_dir, self.batch_size, self.val_size, self.seed = Path(data_dir), batch_size, val_size, seed
        # images of an epoch that are done beyond its batches, after another batch size; see `runs.epoch_position`
        self.ahead = {"epoch": 0, IMAGES_AHEAD: 0}
        self.save_hyperparameters()

    def state_dict(self) -> dict[str, Any]:
        """Return by how many images the position in this epoch is ahead of its batches, if it is."""
        assert self.trainer is not None
        is_ahead = self.ahead[IMAGES_AHEAD] and self.ahead["epoch"] == self.trainer.current_epoch
        return dict(self.ahead) if is_ahead else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.ahead = state_dict

    def _position(self) -> tuple[int, int]:
        """Return the epoch, and the number of its images that are done in all processes."""
        assert self.trainer is not None
        epoch, batches = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1
        ahead = self.ahead[IMAGES_AHEAD] if self.ahead["epoch"] == epoch else 0
        return epoch, batches * self.batch_size * self.trainer.world_size + ahead

    def prepare_data(self) -> None:
        mnist.prepare(self.data_dir)

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        images, labels = mnist.load(self.data_dir, train=stage in ("fit", "validate"))
        self.images, self.labels = images.to(device), labels.to(device)

    def train_dataloader(self) -> ShuffledLoader:
        trainer = self.trainer
        assert trainer is not None
        return ShuffledLoader(
            self.images,
            self.labels,
            self.split()[0],
            self.batch_size,
            position=self._position,
            # Lightning does the same with a DataLoader: overfitting repeats the same batches
            seed=None if trainer.overfit_batches else self.seed,  # type: ignore[attr-defined]
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def val_dataloader(self) -> SequentialLoader | list[SequentialLoader]:
        return self.sequential(self.split()[1]) if self.val_size else []

    def test_dataloader(self) -> SequentialLoader:
        return self.predict_dataloader()

    def split(self) -> tuple[Tensor, Tensor]:
        """Return the indices of the images to train on and of those held out, (60,000 - V,) and (V,)."""
        order = torch.randperm(mnist.TRAIN_SIZE, generator=generator(self.seed, -1))
        return order[self.val_size :].sort().values, order[: self.val_size].sort().values
