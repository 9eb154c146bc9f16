"""WideMLP, a multilayer perceptron of wide layers."""

import itertools
import math

from torch import Tensor, nn

from mnist_amp.number_types import ClosedUnitInterval, PositiveInt32


class WideMLP(nn.Module):
    """Linear layers of `hidden_dim` with ReLU and dropout between them.

    Nearly all of its time goes to products of large matrices, where half precision gains the most.

    Args:
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers, at least 1.
        dropout: share of the features that are dropped in training, after each hidden layer.
        num_classes: number of classes.
        image_shape: channels, height and width of the images.

    Examples:
        >>> import torch
        >>> WideMLP(hidden_dim=64)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        hidden_dim: PositiveInt32 = 2048,
        depth: PositiveInt32 = 2,
        dropout: ClosedUnitInterval = 0.0,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        widths = [math.prod(image_shape), *[hidden_dim] * depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dim, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of normalised images (N, C, H, W)."""
        logits: Tensor = self.layers(images)
        return logits
