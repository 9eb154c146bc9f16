"""Loaders of batches from images that stay in memory, on the device that uses them.

Loading image by image takes nine tenths of the guide's training time. Here the images of several batches are gathered
and normalised together, and a batch is a view of them. Lightning shards only DataLoaders, so these loaders shard
themselves for distributed runs.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnist_amp.data.normalization import TO_UNIT, Normalization

# pixels gathered together, at least a batch. On a CPU, malloc would get fresh pages for each larger block. On a GPU,
# larger blocks take fewer launches
BLOCK = {"cpu": 256 * 28 * 28, "cuda": 4096 * 28 * 28}


class Batch(NamedTuple):
    """Images (N, C, H, W) float32, normalised; labels and indices in the data set, (N,) int64."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class ShuffledLoader:
    """The training images, each once an epoch, in an order that is a function of (seed, epoch) alone.

    Process `rank` of `world_size` sees every `world_size`-th image of the order. All processes must take the same
    number of steps, so up to `world_size - 1` images are left out of an epoch, different ones each time.

    Args:
        images: (M, C, H, W) uint8, on the device that trains.
        labels: (M,) int64, on the same device.
        indices: which of the M images to train on.
        batch_size: images per batch and process.
        position: returns the epoch and the number of its images that are done, in all processes. It is called at the
            first batch of an epoch, because Lightning makes the iterator before it restores the progress of a
            checkpoint.
        seed: of the order; None keeps the order of `indices` in every epoch.
        rank: of this process.
        world_size: number of processes.
        normalization: of the images.

    Attributes:
        seconds: time that the training steps have waited for images so far; on a CUDA device, the host's part of it.

    Examples:
        >>> images, labels = torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10)
        >>> loader = ShuffledLoader(images, labels, torch.arange(10), 4, position=lambda: (0, 0), seed=42)
        >>> [len(batch.labels) for batch in loader]
        [4, 4, 2]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        batch_size: int,
        position: Callable[[], tuple[int, int]],
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        normalization: Normalization = TO_UNIT,
    ) -> None:
        self.images, self.labels, self.indices, self.normalization = images, labels, indices, normalization
        self.batch_size, self.position, self.seed = batch_size, position, seed
        self.rank, self.world_size = rank, world_size
        self.seconds = 0.0

    def __len__(self) -> int:
        return -(-(len(self.indices) // self.world_size) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        epoch, done = self.position()
        left = self._order(epoch)[done:]
        shard = left[self.rank : len(left) - len(left) % self.world_size : self.world_size].to(self.images.device)
        pixels = BLOCK.get(self.images.device.type, BLOCK["cpu"])
        size = max(pixels // (self.batch_size * self.images[0].numel()), 1) * self.batch_size
        for start in range(0, len(shard), size):
            block = _batch(self.images, self.labels, shard[start : start + size], self.normalization)
            batches = map(Batch, *(torch.split(part, self.batch_size) for part in block))
            self.seconds += time.perf_counter() - started
            yield from batches
            started = time.perf_counter()

    def _order(self, epoch: int) -> Tensor:
        if self.seed is None:
            return self.indices
        return self.indices[torch.randperm(len(self.indices), generator=generator(self.seed, epoch))]

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the Trainer keeps the position in the epoch. Lightning warns about a loader without this."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing; see `state_dict`."""


class SequentialLoader:
    """Images for evaluation, each once over all processes.

    The processes take turns by batches, not by images. So the batches are the same for any number of processes, and two
    processes give the same metrics as a single process, to the last bit. The last batch of some processes may be empty.

    Args:
        images: (M, C, H, W) uint8, on the device that evaluates.
        labels: (M,) int64, on the same device.
        indices: which of the M images to score.
        batch_size: images per batch.
        rank: of this process.
        world_size: number of processes.
        normalization: of the images.

    Examples:
        >>> images, labels = torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10)
        >>> loader = SequentialLoader(images, labels, torch.arange(10), batch_size=4)
        >>> [batch.indices.tolist() for batch in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        normalization: Normalization = TO_UNIT,
    ) -> None:
        self.images, self.labels, self.indices, self.normalization = images, labels, indices, normalization
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def __len__(self) -> int:
        return -(-len(self.indices) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        indices = self.indices.to(self.images.device)
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield _batch(self.images, self.labels, indices[start : start + self.batch_size], self.normalization)


def generator(seed: int, epoch: int) -> torch.Generator:
    """Return a CPU generator for the order of an epoch, or of the split (epoch -1). torch's global one is not used."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)


def _batch(images: Tensor, labels: Tensor, indices: Tensor, normalization: Normalization) -> Batch:
    return Batch(normalization(images.index_select(0, indices)), labels.index_select(0, indices), indices)
