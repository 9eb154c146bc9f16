"""A network of a user whose steps take long enough to be interrupted."""

import time

from torch import Tensor, nn


class SlowNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(0.1)
        logits: Tensor = self.layers(images)
        return logits
