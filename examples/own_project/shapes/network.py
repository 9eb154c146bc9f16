"""Two convolutions, then the highest value of each feature, wherever it is in the image."""

from torch import nn


class ShapesNet(nn.Sequential):
    def __init__(self, width: int = 8, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(
            *(nn.Conv2d(in_channels, width, 5, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 5, stride=2, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes)),
        )
