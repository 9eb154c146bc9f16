"""The guide's network."""

import torch
from torch import Tensor, nn


class SimpleNN(nn.Module):
    """Linear(784, hidden_dim), ReLU, Linear(hidden_dim, 10).

    The layers bear the names of the guide (`fc1`, `fc2`), so that a `state_dict` saved by either loads in the other.
    """

    def __init__(self, hidden_dim: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, hidden_dim)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Score images (N, 1, 28, 28), or anything that flattens to (N, 784); returns logits (N, 10)."""
        logits: Tensor = self.fc2(self.relu(self.fc1(torch.flatten(images, start_dim=1))))
        return logits
