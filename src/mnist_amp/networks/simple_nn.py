"""SimpleNN, the network of the guide."""

import math

import torch
from torch import Tensor, nn

from mnist_amp.number_types import PositiveInt32


class SimpleNN(nn.Module):
    """A multilayer perceptron: Linear(784, hidden_dim), ReLU, Linear(hidden_dim, 10).

    The layers have the names of the guide's SimpleNN (`fc1`, `fc2`), so a `state_dict` of one loads in the other.

    Args:
        hidden_dim: width of the hidden layer.
        num_classes: number of classes.
        image_shape: channels, height and width of the images.

    Raises:
        ValueError: hidden_dim is less than 1.

    Examples:
        >>> model = SimpleNN(hidden_dim=128)
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self, hidden_dim: PositiveInt32 = 128, num_classes: int = 10, image_shape: tuple[int, int, int] = (1, 28, 28)
    ) -> None:
        super().__init__()
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim is {hidden_dim}; it must be at least 1")
        self.fc1 = nn.Linear(math.prod(image_shape), hidden_dim)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of normalised images (N, C, H, W)."""
        logits: Tensor = self.fc2(self.relu(self.fc1(torch.flatten(images, start_dim=1))))
        return logits
