"""CNN, a small convolutional network."""

from torch import Tensor, nn

from mnist_amp.number_types import ClosedUnitInterval, PositiveInt32


class CNN(nn.Module):
    """Three blocks of a convolution, batch normalisation and ReLU, of which two halve the image; then a linear layer.

    Convolutions do much arithmetic on each value that they read, so on hardware with fast half precision they gain more
    from it than SimpleNN does. Batch normalisation stays in float32 under autocast.

    Args:
        width: channels of the first block; the others have twice as many.
        dropout: share of the features that are dropped in training, before the linear layer.
        num_classes: number of classes.
        in_channels: channels of the images, which may have any size of at least 4 x 4.

    Examples:
        >>> import torch
        >>> CNN(in_channels=3)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, width: PositiveInt32 = 16, dropout: ClosedUnitInterval = 0.0, num_classes: int = 10, in_channels: int = 1
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(in_channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 2 * width),
            nn.AdaptiveMaxPool2d(1),  # on MNIST, the maximum gave a higher accuracy than the mean
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of normalised images (N, in_channels, H, W)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    # without a bias: batch normalisation takes it out again
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
