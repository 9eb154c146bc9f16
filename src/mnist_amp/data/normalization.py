"""Normalisation of images, on the device that uses them."""

import torch
from torch import Tensor


def normalize(images: Tensor) -> Tensor:
    """Turn images (N, 28, 28) uint8 into (N, 1, 28, 28) float32 from -1 to 1.

    The operations are those of torchvision's `ToTensor` and `Normalize((0.5,), (0.5,))`, and so the result is the same
    to the bit.

    Examples:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 28, 2)
        >>> normalize(images).unique()
        tensor([-1.,  1.])
    """
    return images.unsqueeze(1).to(torch.float32).div_(255).sub_(0.5).div_(0.5)
