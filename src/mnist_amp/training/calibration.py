"""Calibrated probabilities: one temperature for all logits, fitted on held-out images, and how well it does.

A network is calibrated if, of the images with a probability of 90 %, it gets 90 % right. Dividing the logits by one
number is enough for most networks, and never changes a guess. (C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On calibration
of modern neural networks. ICML 2017.)
"""

import math
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.image_set import ImageSet
from mnist_amp.data.loader import SequentialLoader
from mnist_amp.errors import RequestError, warn
from mnist_amp.training.metrics import Scored
from mnist_amp.wording import counted

BINS = 15  # of the confidence, as in the paper
RANGE = (0.05, 20.0)  # of temperatures
HALVINGS = 20  # of the range of the logarithm, to a relative error of 6e-6
LEAST_IMAGES, MOST_IMAGES = 100, 5000  # that a temperature is fitted on
MOST_BYTES = 2**28  # of training images that are read for it: five times MNIST


class Bin(NamedTuple):
    """The images whose confidence, the probability of the guess, is in a range.

    Attributes:
        confidence: their mean confidence, 0 to 1.
        accuracy: 0 to 1.
        images: their number.
    """

    confidence: float
    accuracy: float
    images: int


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """Return the temperature T for which the probabilities softmax(logits / T) have the lowest cross-entropy.

    Args:
        logits: (N, classes), of images that were not trained on. Rows that are not finite are left out.
        labels: (N,) int64.

    Returns:
        a number from 0.05 to 20, with 4 digits: above 1 if the probabilities are too high. None for less than 100
        images.

    Examples:
        >>> sure = torch.tensor([[9.0, 0.0]]).expand(1000, 2)  # 99.99 %, and 900 of 1,000 are right
        >>> fit_temperature(sure, torch.arange(1000) // 900)
        4.096
    """
    finite = logits.isfinite().all(dim=1)
    logits, labels = logits[finite].double(), labels[finite]
    if len(labels) < LEAST_IMAGES:
        return None
    low, high = map(math.log, RANGE)
    target = logits.gather(1, labels.unsqueeze(1)).mean()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # the derivative of the cross-entropy by 1 / T, which grows with 1 / T
        expected = ((logits / math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean()
        low, high = (middle, high) if expected > target else (low, middle)
    return float(f"{math.exp((low + high) / 2):.4g}")


def calibration_error(scored: Scored, temperature: float = 1.0) -> float:
    """Return the expected calibration error: the mean distance of accuracy and confidence over 15 bins, 0 to 1."""
    probabilities = (scored.logits.double() / temperature).softmax(dim=1)
    classes = scored.logits.shape[1]
    return multiclass_calibration_error(probabilities, scored.labels, classes, BINS, validate_args=False).item()


def reliability(scored: Scored, temperature: float = 1.0) -> list[Bin]:
    """Return the bins of a reliability diagram, by confidence; empty ones are left out."""
    confidence, guess = (scored.logits.double() / temperature).softmax(dim=1).max(dim=1)
    correct = (guess == scored.labels).double()
    number = (confidence * BINS).ceil().long().clamp(1, BINS)  # a bin includes its upper end, as in torchmetrics
    inside = [number == each for each in range(1, BINS + 1)]
    return [
        Bin(confidence[rows].mean().item(), correct[rows].mean().item(), int(rows.sum()))
        for rows in inside
        if rows.any()
    ]


def score_held_out(trainer: Trainer, module: LightningModule, data: object) -> Scored | None:
    """Return the logits of the validation images, while a Trainer evaluates other images.

    The module computes them as it computes those of a batch: on the same device, in the same precision. Nothing is
    logged and no hook is called. Each process scores all of the images, so none waits for another.

    Args:
        trainer: evaluates; its module is in evaluation mode.
        module: returns logits (N, classes) from images (N, C, H, W) float32, normalised.
        data: of the images.

    Returns:
        of at most 5,000 images. None if there are none: another data module, no validation images, validation images
        that the network may have been trained on, or training images that can't be read, or that take more than 256 MB,
        and so long to read.
    """
    if not isinstance(data, ClassificationDataModule) or not data.val_is_unseen:
        return None
    if not len(indices := held_out(data)):
        return None
    try:
        training = data.source.load(train=True)
    except RequestError as error:  # the test images were read, and their metrics must not be lost
        if trainer.is_global_zero:
            warn(f"there is no temperature, because the training images can't be read: {error}")
        return None
    device = trainer.strategy.root_device
    return _score(trainer, module, ImageSet(*(part[indices].to(device) for part in training)), data)


def why_unknown(data: object) -> str:
    """Return why there is no temperature for a network that was trained with these data."""
    if not isinstance(data, ClassificationDataModule) or not data.val_size:
        return "no validation images"
    if not data.val_is_unseen:
        return "the network may have been trained on the validation images"
    if not is_read_quickly(data):
        return "the training images take more than 256 MB"
    if (count := len(held_out(data))) < LEAST_IMAGES:
        return f"{counted(count, 'validation image')}; {LEAST_IMAGES} are needed"
    # they can't be read, the network is too large, or its output is not finite
    return f"fewer than {LEAST_IMAGES} validation images could be scored"


def held_out(data: ClassificationDataModule) -> Tensor:
    """Return the indices (N,) of at most 5,000 validation images, evenly chosen; none of very large data."""
    return evenly(data.split()[1], MOST_IMAGES) if is_read_quickly(data) else torch.arange(0)


def is_read_quickly(data: ClassificationDataModule) -> bool:
    """Whether the training images take at most 256 MB."""
    return data.train_size * math.prod(data.image_shape) <= MOST_BYTES


def evenly(indices: Tensor, most: int) -> Tensor:
    """Return at most this many of the indices (N,), at equal distances."""
    return indices[:: -(-len(indices) // most) or 1]


def _score(trainer: Trainer, module: LightningModule, images: ImageSet, data: ClassificationDataModule) -> Scored:
    everything = torch.arange(len(images.labels))
    loader = SequentialLoader(*images, everything, data.batch_size, normalization=data.normalization)
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        logits = torch.cat([module(batch.images).float() for batch in loader])
    return Scored(everything, images.labels.cpu(), logits.cpu())
