"""The trained network as it is used: it takes the pixels of images, 0 to 255, and computes in one dtype."""

import copy

import torch
from torch import Tensor, nn

from mnist_amp.networks.simple_nn import SimpleNN

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def fold_normalization(model: SimpleNN) -> SimpleNN:
    """Return a copy of the network, in float64, whose first layer includes the normalisation.

    The copy takes pixels v from 0 to 255. `model` takes (v / 255 - 0.5) / 0.5 = 2 v / 255 - 1, so its first layer is
    W (2 v / 255 - 1) + b = (2 W / 255) v + (b - the sum of W over each row).
    Files that hold weights alone then need no normalisation, and the background, which is 0, costs no precision.
    """
    folded = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        folded.fc1.bias.sub_(folded.fc1.weight.sum(dim=1))
        folded.fc1.weight.mul_(2 / 255)
    return folded.requires_grad_(False)


class PixelNetwork(nn.Module):
    """Takes images (N, 28, 28) uint8, and returns logits (N, 10) float32.

    Args:
        model: takes normalised images.
        dtype: of the weights, and of the arithmetic.

    Examples:
        >>> network = PixelNetwork(SimpleNN(), torch.bfloat16)
        >>> images = torch.zeros(5, 28, 28, dtype=torch.uint8)
        >>> network(images).shape, network(images).dtype
        (torch.Size([5, 10]), torch.float32)
    """

    def __init__(self, model: SimpleNN, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = fold_normalization(model).to(dtype), dtype

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.to(self.dtype)).float()
        return logits
