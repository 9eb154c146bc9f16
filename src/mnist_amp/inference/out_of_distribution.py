"""How far an image is from the images that a network was trained on, calibrated at a rate of false alarms.

A probability does not tell it: SimpleNN, trained on MNIST, is sure of a digit in half of all letters. The distance to
the nearest training images of the guessed class does. (Y. Sun, Y. Ming, X. Zhu, Y. Li: Out-of-distribution detection
with deep nearest neighbors. ICML 2022.) It is larger if another class is nearer, because the guess may then be wrong.

For grey images, mostly drawings, the directions of the edges in each part of the image are compared. The last hidden
layer of a network does not see what made no difference between its classes. (N. Dalal, B. Triggs: Histograms of
oriented gradients for human detection. CVPR 2005.) The distance is that to the plane through the nearest training
images, because what lies between them is a digit as well. A letter is hardly nearer to the plane than to the images.
(P. Vincent, Y. Bengio: K-local hyperplane and convex distance nearest neighbor algorithms. NIPS 2001.) For colour
images, mostly photographs, the hidden layer is compared.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.loader import generator
from mnist_amp.errors import RequestError, warn
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.training.calibration import LEAST_IMAGES, MOST_IMAGES, evenly, fit_temperature, held_out, is_read_quickly

NOTE = "unlike the training images"
FALSE_ALARMS = 0.01  # share of the correctly classified held-out images that are beyond the threshold
FALSE_ALARMS_PHOTOGRAPHS = 0.03  # the same, beyond the threshold of photographs: they are likelier to show letters
NEIGHBOURS, PLANE = 3, 15  # training images: whose mean distance counts, and that a plane goes through
PENALTY = 0.3  # of weights far from equal, so that a plane reaches only a little beyond its images
MOST_EDGES, MOST_HIDDEN = 20_000, 5_000  # training images to compare with; a hidden layer takes longer
MOST_DISTANCES = 2_500  # held-out images that the threshold comes from
MULTIPLICATIONS = 400 * 10**9  # of the network, for all of these images: about 6 s on 2 cores
SIDE, CELLS, DIRECTIONS = 28, 7, 12  # of the edges: an image of 28 x 28 pixels, 7 x 7 parts, 30 degrees apart
SMOOTH, OVERLAP = 0.7, 0.5  # standard deviations: of the derivative in pixels, and of a part in its sides
# exponent of the ratio of the distance to the guessed class, and the mean distance to images of the nearest other class
DOUBT = 0.25
FARTHEST = 2.0  # distance of two features of length 1
TOGETHER = 2**16  # values of the images whose edges are computed together: they fit into a core's cache
PLANES = 512  # computed together, to save memory

Features = Callable[[Tensor], Tensor]  # of images (N, C, H, W) uint8: (N, features) float32 on the CPU, of length 1


class Reference:
    """Training images to compare with, and the temperature of the network's probabilities.

    Args:
        features: of images.
        images: training images (M, C, H, W) uint8.
        labels: their classes (M,).
        classes: the number of classes.

    Attributes:
        temperature: that calibrates the probabilities: softmax(logits / temperature); None if it is unknown.
        threshold: the distance that becomes 1; not finite if it is unknown, and then all distances are nan.
        photograph_threshold: the distance that becomes 1 in a photograph; it is lower.
    """

    temperature: float | None = None
    threshold = photograph_threshold = 1.0

    def __init__(self, features: Features, images: Tensor, labels: Tensor, classes: int) -> None:
        self.features = features
        known = features(images)
        self.by_class = [known[labels == label] for label in range(classes)]

    @classmethod
    @torch.inference_mode()
    def of(cls, network: nn.Module, data: ClassificationDataModule) -> Self | None:
        """Score the training and the validation images of a network.

        Of a large network, fewer images are computed: as many as take 400 billion multiplications, which are 220
        for ResNet-18 and 224 x 224 pixels. The threshold is then less exact: with 110 images, 1.9 % are beyond it on
        average.

        If the network may have been trained on the validation images (`data.val_is_unseen`), the temperature is
        unknown. The threshold still comes from them: the images that they are compared with are others, so what it
        was trained on changes little. Both need 100 held-out images, and the threshold as many that are classified
        correctly.

        Args:
            network: takes normalised images (N, C, H, W), returns logits (N, classes). It is computed in blocks of
                `data.batch_size` images, on the device of its weights.
            data: that it was trained with.

        Returns:
            None if the training images take more than 256 MB, and long to read; if they can't be read, with a warning;
            if the network is so large that it takes too long.

        Examples:
            >>> reference = Reference.of(module.model, data)  # doctest: +SKIP
            >>> reference.distances(images, guesses) > 1  # unlike the training images  # doctest: +SKIP
        """
        train, held = _split(data)
        if not len(held):
            return None
        try:
            images, labels = data.source.load(train=True)
        except RequestError as error:  # the user's images can be scored without them
            warn(f"images are not compared with the training images, because these can't be read: {error}")
            return None
        pixels = PixelNetwork(network, data.normalization).to(next(network.parameters()).device)
        most = MULTIPLICATIONS // max(multiplications(pixels, images[:1]), 1)
        if most < 2 * max(LEAST_IMAGES, NEIGHBOURS * data.num_classes):
            return None
        features: Features = edges
        if data.image_shape[0] == 1:
            train = train[:MOST_EDGES]
        else:  # the network computes the training images as well
            features, most = hidden_layer(pixels, data.batch_size), most // 2
            train = train[: min(MOST_HIDDEN, most)]
        reference, held = cls(features, images[train], labels[train], data.num_classes), evenly(held, most)
        reference._calibrate(pixels, images[held], labels[held], data.batch_size)
        if not (data.val_size and data.val_is_unseen):
            reference.temperature = None
        return reference

    def _calibrate(self, network: PixelNetwork, images: Tensor, labels: Tensor, size: int) -> None:
        """Set the thresholds and the temperature from held-out images.

        Of n images, (n + 99) / (n + 1) % of others are beyond the threshold on average, because it is a quantile of few
        distances: 10.8 % for 9, 2 % for 100, 1 % for many. So below 100 images the stated rate is far off.
        """
        blocks = score(network, images, size)
        if self.features is edges:
            features, logits = edges(images), torch.cat([logits for _, logits in blocks])
        else:  # the network computes both at once
            features, logits = map(torch.cat, zip(*blocks, strict=True))
        self.temperature = fit_temperature(logits, labels)
        guesses = logits.argmax(dim=1)
        correct = evenly((guesses == labels).nonzero().flatten(), MOST_DISTANCES)
        if len(correct) < LEAST_IMAGES:
            self.threshold = self.photograph_threshold = math.nan
            return
        distances = self._distances(features[correct], guesses[correct])
        self.threshold = distances.quantile(1 - FALSE_ALARMS).item()
        self.photograph_threshold = distances.quantile(1 - FALSE_ALARMS_PHOTOGRAPHS).item()

    @torch.inference_mode()
    def distances(self, images: Tensor, guesses: Tensor, are_photographs: Tensor | None = None) -> Tensor:
        """Return how far images are from the training images of the guessed classes.

        Args:
            images: (N, C, H, W) uint8, on any device.
            guesses: their classes (N,) int64, according to the network.
            are_photographs: (N,) bool, on any device, whether an image was found in a photograph; None if none was.

        Returns:
            (N,) float32 on the CPU: over 1 for an image that is unlike the training images. Of the held-out images
            that are read correctly, 1 % are, and 3 % if they are taken for photographs. nan if it is unknown.
        """
        if not math.isfinite(self.threshold):
            return torch.full((len(images),), math.nan)
        thresholds = torch.full((len(images),), self.threshold)
        if are_photographs is not None:
            thresholds[are_photographs.cpu()] = self.photograph_threshold
        return self._distances(self.features(images), guesses.cpu()) / thresholds

    def _distances(self, features: Tensor, guesses: Tensor) -> Tensor:
        """Return distances (N,) that are not yet divided by a threshold."""
        near = self._near(features)
        other = near.scatter(1, guesses.unsqueeze(1), math.inf).amin(dim=1).clamp(max=FARTHEST)
        if self.features is edges:
            own = self._to_planes(features, guesses)
        else:  # a hidden layer may have fewer values than a plane has images, and the plane would be everywhere
            own = near.gather(1, guesses.unsqueeze(1)).squeeze(1)
        return own * (own / other) ** DOUBT

    def _to_planes(self, features: Tensor, guesses: Tensor) -> Tensor:
        """Return the distances (N,) to the planes through the nearest training images of the guessed classes."""
        away = torch.full((len(features),), math.inf)
        for label, known in enumerate(self.by_class):
            count = min(PLANE, len(known))
            for rows in torch.split((guesses == label).nonzero().flatten(), PLANES) if count else ():
                nearest = (features[rows] @ known.T).topk(count).indices
                away[rows] = plane_distances(features[rows], known[nearest])
        return away.clamp(min=1e-6)

    def _near(self, features: Tensor) -> Tensor:
        """Return the mean distance (N, classes) to the nearest training images of each class; infinite without any."""
        near = torch.full((len(features), len(self.by_class)), math.inf)
        for label, known in enumerate(self.by_class):
            if count := min(NEIGHBOURS, len(known)):
                cosines = (features @ known.T).topk(count).values  # of vectors of length 1
                near[:, label] = (2 - 2 * cosines).clamp(min=0).sqrt().mean(dim=1)
        return near.clamp(min=1e-6)


def plane_distances(points: Tensor, neighbours: Tensor) -> Tensor:
    """Return how far points (N, F) are from the planes through their neighbours (N, K, F), (N,).

    The nearest point of a plane is a weighted mean of the neighbours. Weights far from equal are penalised.

    Examples:
        >>> corners = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
        >>> plane_distances(torch.tensor([[0.5, 0.0]]), corners)  # of the line from (0, 1) to (1, 1)
        tensor([1.])
    """
    away = neighbours - points.unsqueeze(1)
    products = away @ away.transpose(1, 2)
    size = products.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    penalised = products + PENALTY * size[:, None, None] * torch.eye(products.shape[1])
    weights: Tensor = torch.cholesky_solve(torch.ones(*products.shape[:2], 1), torch.linalg.cholesky(penalised))
    nearest = away.transpose(1, 2) @ (weights / weights.sum(dim=1, keepdim=True))
    found: Tensor = torch.linalg.vector_norm(nearest, dim=(1, 2))
    return found


def _split(data: ClassificationDataModule) -> tuple[Tensor, Tensor]:
    """Return the indices of images to compare with, in a random order, and of others for the threshold.

    None of them is an extra image. Both are empty if the data are too large.
    """
    train = data.split()[0]
    train = train[train < data.train_size]
    if not is_read_quickly(data):
        return train[:0], train[:0]
    if data.val_size:
        return train[torch.randperm(len(train), generator=generator(0, 0))], held_out(data)
    mixed = train[torch.randperm(len(train), generator=generator(0, 1))]
    return mixed[len(train) // 10 :], mixed[: min(len(train) // 10, MOST_IMAGES)]


@torch.inference_mode()
def edges(images: Tensor) -> Tensor:
    """Return how much edge images (N, C, H, W) uint8 have in each direction and part, as cube roots.

    They are computed on the CPU, so they are the same on every device.

    Returns:
        (N, 588) float32, of length 1: 12 directions x 7 x 7 parts. They do not depend on the contrast.
    """
    filters, size = _filters(), max(TOGETHER // math.prod(images.shape[1:]), 1)
    return torch.cat([_edges(block, *filters) for block in torch.split(images.cpu(), size)])


def _edges(images: Tensor, derivatives: Tensor, directions: Tensor, parts: Tensor) -> Tensor:
    grey = images.float().mean(dim=1, keepdim=True)
    if grey.shape[2:] != (SIDE, SIDE):
        grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
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


def hidden_layer(network: PixelNetwork, size: int) -> Features:
    """Return a function that returns the input of a network's last linear layer, or its logits if it has none.

    Args:
        network: computes them, where it is.
        size: images that are computed together.
    """
    return lambda images: torch.cat([hidden for hidden, _ in score(network, images, size)])


@torch.inference_mode()
def score(network: PixelNetwork, images: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the hidden layer (N, features), of length 1, and the logits (N, classes) of blocks of images, on the CPU.

    Args:
        network: computes them, where it is.
        images: (N, C, H, W) uint8, on any device.
        size: images of a block.
    """
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    device, inputs = next(network.parameters()).device, list[Tensor]()
    with linear[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0])) if linear else nullcontext():
        for block in torch.split(images, size):
            logits = network(block.to(device))
            hidden = inputs[-1] if inputs else logits
            inputs.clear()
            yield F.normalize(hidden.flatten(1).float(), dim=1).cpu(), logits.cpu()


@torch.inference_mode()
def multiplications(network: PixelNetwork, image: Tensor) -> int:
    """Return how many multiplications an image (1, C, H, W) uint8 takes in the linear layers and convolutions."""
    found: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        found.append(layer.weight.numel() * (output.numel() // len(layer.weight)))

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, kinds)]
    network(image.to(next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return sum(found)
