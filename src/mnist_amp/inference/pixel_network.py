"""The trained network as it is used: it takes the pixels of images, 0 to 255, and computes in one dtype."""

import copy

import torch
from torch import Tensor, nn

from mnist_amp.data.normalization import TO_UNIT, Normalization

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class PixelNetwork(nn.Module):
    """Takes images (N, C, H, W) uint8, normalises them in float32, and returns logits (N, classes) float32.

    Args:
        model: takes normalised images.
        normalization: of the images.
        dtype: of the weights, and of the arithmetic.

    Examples:
        >>> from mnist_amp.networks import SimpleNN
        >>> network = PixelNetwork(SimpleNN(), dtype=torch.bfloat16)
        >>> images = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
        >>> network(images).shape, network(images).dtype
        (torch.Size([5, 10]), torch.float32)
    """

    def __init__(
        self,
        model: nn.Module,
        normalization: Normalization = TO_UNIT,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().to(dtype).eval().requires_grad_(False)
        self.normalization, self.dtype = normalization, dtype

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalization(images).to(self.dtype)).float()
        return logits
