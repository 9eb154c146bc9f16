"""The trained network as it is used: on pixels as they are in a picture, 0 to 255, in one dtype."""

import copy

import torch
from torch import Tensor, nn

from mnist_amp.networks.simple_nn import SimpleNN

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def folded(model: SimpleNN) -> SimpleNN:
    """Return the network with the normalisation worked into its first layer, in float64.

    It takes pixels v from 0 to 255 where `model` takes (v / 255 - 0.5) / 0.5 = 2 v / 255 - 1:
    W (2 v / 255 - 1) + b = (2 W / 255) v + (b - the sum of W's columns).
    So plain weights can have the normalisation inside, and dark paper, which is 0, costs no precision.
    """
    folded = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        folded.fc1.bias.sub_(folded.fc1.weight.sum(dim=1))
        folded.fc1.weight.mul_(2 / 255)
    return folded.requires_grad_(False)


class PixelNN(nn.Module):
    """Scores images (N, 28, 28) uint8; returns logits (N, 10) float32.

    Args:
        model: takes normalised images.
        dtype: of the weights, and of the arithmetic.
    """

    def __init__(self, model: SimpleNN, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = folded(model).to(dtype), dtype

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.to(self.dtype)).float()
        return logits
