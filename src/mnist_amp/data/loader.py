"""Batches cut from images that stay in memory, on the device that uses them.

Image-by-image loading is nine tenths of the guide's training time. Here the images of several batches are picked out
and normalised at once, and a batch is a view of them. Lightning shards DataLoaders only, so these shard themselves.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK = 1024  # images picked out at once, at least a batch: a few megabytes, which a CPU's cache can hold


class Batch(NamedTuple):
    """Images (N, 1, 28, 28) float32 from -1 to 1; digits and indices in the set, (N,) int64."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class ShuffledLoader:
    """The training images, each once an epoch, in an order that is a function of (seed, epoch) alone.

    Process `rank` of `world_size` sees every `world_size`-th image of the order; up to `world_size - 1` images are left
    out of an epoch, others each time, since all processes must take the same number of steps.

    Args:
        images: (M, 28, 28) uint8, on the device that trains.
        labels: (M,) int64, on the same device.
        indices: which of the M images to train on.
        batch_size: images per batch and process.
        position: returns the epoch and how many of its batches are done. It is asked at an epoch's first batch, as
            Lightning asks for the iterator before it has restored a checkpoint's progress.
        seed: of the order; None keeps the order of `indices` in every epoch.
        rank: of this process.
        world_size: number of processes.

    Attributes:
        seconds: time that picking images out has taken so far, which is how long the steps had to wait for them; on a
            CUDA device, the host's part of it.
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
    ) -> None:
        self.images, self.labels, self.indices = images, labels, indices
        self.batch_size, self.position, self.seed = batch_size, position, seed
        self.rank, self.world_size = rank, world_size
        self.seconds = 0.0

    def __len__(self) -> int:
        return -(-(len(self.indices) // self.world_size) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        epoch, done = self.position()
        shard = self._order(epoch)[done * self.batch_size :].to(self.images.device)
        size = max(BLOCK // self.batch_size, 1) * self.batch_size
        for start in range(0, len(shard), size):
            block = _batch(self.images, self.labels, shard[start : start + size])
            batches = map(Batch, *(torch.split(part, self.batch_size) for part in block))
            self.seconds += time.perf_counter() - started
            yield from batches
            started = time.perf_counter()

    def _order(self, epoch: int) -> Tensor:
        count = len(self.indices)
        if self.seed is None:
            order = self.indices
        else:
            order = self.indices[torch.randperm(count, generator=generator(self.seed, epoch))]
        return order[self.rank : count - count % self.world_size : self.world_size]

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the place in the epoch is the Trainer's to keep. Lightning warns of a loader without this."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing; see `state_dict`."""


class SequentialLoader:
    """Images for evaluation, each once over all processes.

    The processes take batches in turn, not images. So the batches are the same however many processes there are, and
    the figures of two processes are those of one, to the last bit. Where the batches do not come out even, the last one
    of some processes is empty.

    Args:
        images: (M, 28, 28) uint8, on the device that evaluates.
        labels: (M,) int64, on the same device.
        indices: which of the M images to score.
        batch_size: images per batch.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, indices: Tensor, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.images, self.labels, self.indices = images, labels, indices
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def __len__(self) -> int:
        return -(-len(self.indices) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        indices = self.indices.to(self.images.device)
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield _batch(self.images, self.labels, indices[start : start + self.batch_size])


def generator(seed: int, epoch: int) -> torch.Generator:
    """Return a CPU generator for an epoch's order, or with epoch -1 for the split, apart from torch's global one."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)


def normalize(images: Tensor) -> Tensor:
    """Turn images (N, 28, 28) uint8 into (N, 1, 28, 28) float32 from -1 to 1.

    The operations, and so the result's bits, are those of torchvision's `ToTensor` and `Normalize((0.5,), (0.5,))`.
    """
    return images.unsqueeze(1).to(torch.float32).div_(255).sub_(0.5).div_(0.5)


def _batch(images: Tensor, labels: Tensor, indices: Tensor) -> Batch:
    return Batch(normalize(images.index_select(0, indices)), labels.index_select(0, indices), indices)
