"""Whether the images that a network was trained on have MNIST's form, so that an image it reads is brought into it."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mnist_amp.images.mnist_form import BOX, CENTRE, INK, SIDE

if TYPE_CHECKING:
    from mnist_amp.data import ClassificationDataModule

NAMED = ("MNIST", "QMNIST", "EMNIST", "KMNIST", "USPS")  # data sets of light ink on a dark background
LOOKED_AT = 1000  # training images, or up to twice as many
SHARE = 0.9  # of them that must have the form; all images of MNIST have it


def is_ink_on_paper(data: "ClassificationDataModule") -> bool:
    """Return whether a network that is trained on these data takes light ink on a dark background, as MNIST's.

    A data set of a known name tells it. Images of the user's own are looked at, because they may be digits that
    `predict --save_images` has written, or photographs of that size.
    """
    name, is_own = data.hparams["dataset"], data.hparams["folder"] is not None or "." in data.hparams["dataset"]
    if data.image_shape != (1, SIDE, SIDE) or not is_own:
        return data.image_shape == (1, SIDE, SIDE) and name in NAMED
    return have_mnist_form(data.source.examples(LOOKED_AT)[:, 0])


def have_mnist_form(images: Tensor) -> bool:
    """Return whether images (N, 28, 28) uint8 have MNIST's form: a box of 20 x 20, its centre of mass in the centre.

    Examples:
        >>> images = torch.zeros(1, 28, 28, dtype=torch.uint8)
        >>> images[:, 5:24, 12:17] = 255
        >>> have_mnist_form(images), have_mnist_form(255 - images)
        (True, False)
    """
    levels = images.double()
    ink, total = levels > INK * levels.amax((1, 2), keepdim=True), levels.sum((1, 2)).clamp(min=1)
    fits = total > 1
    for across in (1, 2):
        places = torch.arange(SIDE, dtype=torch.float64)
        has_ink, mass = ink.any(across), levels.sum(across)
        first = torch.where(has_ink, places, SIDE).amin(1)
        last = torch.where(has_ink, places, -1).amax(1)
        off_centre = ((mass @ places) / total - CENTRE).abs()
        fits &= (last - first < BOX) & (off_centre <= 0.51)  # half a pixel, and rounding
    return bool(fits.double().mean() >= SHARE)
