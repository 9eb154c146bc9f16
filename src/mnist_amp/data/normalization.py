"""Normalisation of images, on the device that uses them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Normalization(NamedTuple):
    """The mean and the standard deviation that images are normalised with, for values from 0 to 1.

    Attributes:
        mean: of all channels, or of each.
        std: of all channels, or of each; above 0.

    Examples:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 1, 28, 2)
        >>> Normalization(0.5, 0.5)(images).unique()
        tensor([-1.,  1.])
    """

    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.5

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) uint8 into float32.

        The operations are those of torchvision's `ToTensor` and `Normalize`, and so the result is the same to the bit.
        """
        mean, std = (_by_channel(value, images.device) for value in self)
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)


TO_UNIT = Normalization()  # from -1 to 1


def _by_channel(value: float | Sequence[float], device: torch.device) -> float | Tensor:
    """Return a value for each channel as a tensor (C, 1, 1). A single value stays a number, which is faster."""
    return value if isinstance(value, int | float) else torch.tensor(value, device=device).reshape(-1, 1, 1)
