"""How well the user's images are read, if their folders or files tell their classes. Without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_amp.reporting import plots
from mnist_amp.reporting.class_names import unique_names
from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.runs.atomic_files import atomic_write

FILES = ("confusion_matrix.png", "misclassified.png")


@dataclass(frozen=True)
class LabelledImage:
    """An image whose class is known.

    Attributes:
        label: the index of its class.
        tiles: the digits that were found in it; the image is read if it has one, with a guess.
    """

    label: int
    tiles: list[Tile]

    @property
    def guess(self) -> int | None:
        return self.tiles[0].guess if len(self.tiles) == 1 else None


def described_accuracy(images: Sequence[LabelledImage]) -> str:
    """Return the accuracy in words. An image that was not read, or that several digits were found in, is wrong.

    >>> seven = Tile("7.png", np.zeros((28, 28), np.uint8), [0.0] * 7 + [1.0], "")
    >>> described_accuracy([LabelledImage(7, [seven]), LabelledImage(7, [seven, seven])])
    '50.00% of 2 images with a known class (1 not read as one image)'
    """
    right = sum(image.guess == image.label for image in images)
    unread = sum(image.guess is None for image in images)
    wrong = f" ({unread:,} not read as one image)" if unread else ""
    return f"{right / len(images):.2%} of {len(images):,} images with a known class{wrong}"


def write_plots(images: Sequence[LabelledImage], folder: Path, classes: Sequence[str]) -> None:
    """Draw the confusion matrix, and the mistakes with the most probable guesses, of the images that were read."""
    names, matrix = unique_names(classes), np.zeros((len(classes), len(classes)), dtype=np.int64)
    mistakes = []
    for image in images:
        if image.guess is None:
            continue
        matrix[image.label, image.guess] += 1
        if image.guess != image.label:
            (tile,) = image.tiles
            mistakes.append(plots.Mistake(tile.image, names[image.label], names[image.guess], tile.probability or 0.0))
    mistakes.sort(key=lambda mistake: -mistake.probability)
    with atomic_write(folder / FILES[0]) as temporary:
        plots.confusion_matrix(matrix.tolist(), temporary, classes)
    with atomic_write(folder / FILES[1]) as temporary:
        plots.misclassified(mistakes, temporary)
