"""Networks that the command trains by name.

A network is any `nn.Module`, of this package or of your own, that takes images (N, C, H, W) float32, normalised, and
returns logits (N, classes). Constructor parameters named `num_classes`, `in_channels` and `image_shape` (C, H, W)
are filled from the data; the others are options, such as `--network.width 32`, so they take plain values: numbers,
texts, lists. For example:

    class MyNet(nn.Module):
        def __init__(self, width: int = 32, num_classes: int = 10, in_channels: int = 1) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(in_channels, width, 3)
            self.classifier = nn.Linear(width, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            return self.classifier(self.convolution(images).relu().mean(dim=(2, 3)))
"""

from mnist_amp.networks.cnn import CNN
from mnist_amp.networks.simple_nn import SimpleNN
from mnist_amp.networks.vit import ViT
from mnist_amp.networks.wide_mlp import WideMLP

SHIPPED = {network.__name__: network for network in (SimpleNN, CNN, ViT, WideMLP)}

__all__ = ["CNN", "SHIPPED", "SimpleNN", "ViT", "WideMLP"]
