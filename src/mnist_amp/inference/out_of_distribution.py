"""How far an image is from the images that a network was trained on, calibrated at a rate of false alarms.

A probability does not tell it: SimpleNN, trained on MNIST, is sure of a digit in half of all letters. The distance to
the nearest training images of the guessed class does. (Y. Sun, Y. Ming, X. Zhu, Y. Li: Out-of-distribution detection
with deep nearest neighbors. ICML 2022.) It is larger if another class is nearer, because the guess may then be wrong.

For grey images, mostly drawings, the directions of the edges in each part of the image are compared. The last hidden
layer of a network does not see what made no difference between its classes. (N. Dalal, B. Triggs: Histograms of
oriented gradients for human detection. CVPR 2005.) For colour images, mostly photographs, the hidden layer is compared.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.loader import generator
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.training.calibration import MOST_IMAGES, fit_temperature, held_out

NOTE = "unlike the training images"
FALSE_ALARMS = 0.01  # share of the correctly classified held-out images that are beyond the threshold
NEIGHBOURS = 3
MOST_EDGES, MOST_HIDDEN = 20_000, 5_000  # training images to compare with; a hidden layer takes longer
SIDE, CELLS, DIRECTIONS = 28, 7, 12  # of the edges: an image of 28 x 28 pixels, 7 x 7 parts, 30 degrees apart
SMOOTH, OVERLAP = 0.7, 0.5  # standard deviations: of the derivative in pixels, and of a part in its sides
DOUBT = 0.25  # exponent of the ratio of the distances to the guessed class and to the nearest other class
FARTHEST = 2.0  # distance of two features of length 1
BLOCK = 500  # images that are computed together

Features = Callable[[Tensor], Tensor]  # of images (N, C, H, W) uint8: (N, features) float32, of length 1


class Reference:
    """Training images to compare with, and the temperature of the network's probabilities.

    Args:
        features: of images.
        images: training images (M, C, H, W) uint8.
        labels: their classes (M,).
        classes: the number of classes.

    Attributes:
        temperature: that calibrates the probabilities: softmax(logits / temperature); 1 if it is unknown.
        threshold: the distance that becomes 1.
    """

    temperature = threshold = 1.0

    def __init__(self, features: Features, images: Tensor, labels: Tensor, classes: int) -> None:
        self.features = features
        known = self._blocks(images)
        self.by_class = [known[labels == label] for label in range(classes)]

    @classmethod
    def of(cls, network: nn.Module, data: ClassificationDataModule) -> Self | None:
        """Score the training and the validation images of a network.

        Args:
            network: takes normalised images (N, C, H, W), returns logits (N, classes).
            data: that it was trained with.

        Returns:
            None if the training images take more than 256 MB, and long to read; or if the network gets none right.

        Raises:
            RequestError: the images can't be read.

        Examples:
            >>> reference = Reference.of(module.model, data)  # doctest: +SKIP
            >>> reference.distances(images, guesses) > 1  # unlike the training images  # doctest: +SKIP
        """
        train, held = _split(data)
        if not len(held):
            return None
        pixels = PixelNetwork(network, data.normalization).to(next(network.parameters()).device)
        features = edges if data.image_shape[0] == 1 else hidden_layer(pixels)
        with torch.inference_mode(False):  # threads read, and they may not write into a tensor of the inference mode
            images, labels = data.source.load(train=True)
        order = train[torch.randperm(len(train), generator=generator(0, 0))]
        order = order[: MOST_EDGES if features is edges else MOST_HIDDEN]
        reference = cls(features, images[order], labels[order], data.num_classes)
        return reference if reference._calibrate(pixels, images[held], labels[held], data.val_size > 0) else None

    def _calibrate(self, network: PixelNetwork, images: Tensor, labels: Tensor, unseen: bool) -> bool:
        """Set the threshold and the temperature from held-out images; return False if none is classified correctly."""
        with torch.inference_mode():
            logits = torch.cat([network(block) for block in torch.split(images, BLOCK)])
        guesses = logits.argmax(dim=1)
        if not (correct := guesses == labels).any():
            return False
        distances = self.distances(images[correct], guesses[correct])
        self.threshold = distances.quantile(1 - FALSE_ALARMS).item()
        self.temperature = (fit_temperature(logits, labels) if unseen else None) or 1.0
        return True

    def distances(self, images: Tensor, guesses: Tensor) -> Tensor:
        """Return how far images are from the training images of the guessed classes.

        Args:
            images: (N, C, H, W) uint8.
            guesses: their classes (N,) int64, according to the network.

        Returns:
            (N,) float32: over 1 for an image that is unlike the training images, which 1 % of the held-out images are.
        """
        near = self._near(self._blocks(images))
        own = near.gather(1, guesses.cpu().unsqueeze(1))
        other = near.scatter(1, guesses.cpu().unsqueeze(1), math.inf).amin(dim=1, keepdim=True).clamp(max=FARTHEST)
        return (own * (own / other) ** DOUBT / self.threshold).squeeze(1)

    def _near(self, features: Tensor) -> Tensor:
        """Return the mean distance (N, classes) to the nearest training images of each class; infinite without any."""
        near = torch.full((len(features), len(self.by_class)), math.inf)
        for label, known in enumerate(self.by_class):
            if count := min(NEIGHBOURS, len(known)):
                near[:, label] = torch.cdist(features, known).topk(count, largest=False).values.mean(dim=1)
        return near.clamp(min=1e-6)

    @torch.inference_mode()
    def _blocks(self, images: Tensor) -> Tensor:
        return torch.cat([self.features(block).cpu() for block in torch.split(images, BLOCK)])


def _split(data: ClassificationDataModule) -> tuple[Tensor, Tensor]:
    """Return the indices of images to compare with, and of others for the threshold."""
    train = data.split()[0]
    if data.val_size:
        return train, held_out(data)
    mixed = train[torch.randperm(len(train), generator=generator(0, 1))]
    return mixed[len(train) // 10 :], mixed[: min(len(train) // 10, MOST_IMAGES)]


def edges(images: Tensor) -> Tensor:
    """Return how much edge images (N, C, H, W) uint8 have in each direction and part, as cube roots.

    Returns:
        (N, 588) float32, of length 1: 12 directions x 7 x 7 parts. They do not depend on the contrast.
    """
    grey = images.float().mean(dim=1, keepdim=True)
    if grey.shape[2:] != (SIDE, SIDE):
        grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
    derivatives, directions, parts = (each.to(grey.device) for each in _filters())
    slopes = F.conv2d(grey, derivatives, padding=derivatives.shape[-1] // 2)
    slopes = torch.cat([slopes, slopes.square().sum(dim=1, keepdim=True).sqrt()], dim=1)  # norm() is slow
    by_direction = torch.einsum("dc,nchw->ndhw", directions, slopes).relu()
    return F.normalize((parts @ by_direction @ parts.T).flatten(1).pow(1 / 3), dim=1)


def _filters() -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives right and down (2, 1, 5, 5), the directions (12, 3) and the parts of a side (7, 28).

    A direction takes the edges within 30 degrees, the fewer the farther away: slope * (cos(angle) - cos(30 degrees)).
    """
    x = torch.arange(-2.0, 3.0)
    smooth = (-0.5 * (x / SMOOTH) ** 2).exp()
    derivatives = torch.stack([smooth[:, None] * (x * smooth), (x * smooth)[:, None] * smooth])
    angles = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    least = torch.full((DIRECTIONS,), -math.cos(2 * math.pi / DIRECTIONS))
    centres = (torch.arange(CELLS) + 0.5) * (SIDE / CELLS) - 0.5
    away = (torch.arange(SIDE) - centres[:, None]) * (CELLS / SIDE)
    parts = (-0.5 * (away / OVERLAP) ** 2).exp()
    return derivatives[:, None], torch.stack([angles.cos(), angles.sin(), least], dim=1), parts


def hidden_layer(network: PixelNetwork) -> Features:
    """Return a function that returns the input of a network's last linear layer, or its logits if it has none."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]

    def features(images: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        hook = layers[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0])) if layers else None
        logits = network(images)
        if hook is not None:
            hook.remove()
        return F.normalize((inputs[-1] if inputs else logits).flatten(1).float(), dim=1)

    return features
