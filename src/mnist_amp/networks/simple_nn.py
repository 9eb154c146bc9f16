"""SimpleNN, the network of the guide."""

import torch
from torch import Tensor, nn


class SimpleNN(nn.Module):
    """A multilayer perceptron: Linear(784, hidden_dim), ReLU, Linear(hidden_dim, 10).

    The layers have the names of the guide's SimpleNN (`fc1`, `fc2`), so a `state_dict` of one loads in the other.

    Args:
        hidden_dim: width of the hidden layer.

    Examples:
        >>> model = SimpleNN(hidden_dim=128)
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(self, hidden_dim: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, hidden_dim)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 10) of normalised images (N, 1, 28, 28)."""
        logits: Tensor = self.fc2(self.relu(self.fc1(torch.flatten(images, start_dim=1))))
        return logits
