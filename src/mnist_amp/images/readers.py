"""Images in the form that a network takes: as MNIST's ink on paper, resized, or unchanged."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mnist_amp.data.decoding import pixels
from mnist_amp.data.image_form import ImageForm, are_dark_on_light
from mnist_amp.errors import RequestError
from mnist_amp.images.data_form import NAMED, is_ink_on_paper
from mnist_amp.images.digit_finder import find_digits
from mnist_amp.images.files import plain
from mnist_amp.images.mnist_form import SIDE, ImageError

if TYPE_CHECKING:
    from mnist_amp.data import ClassificationDataModule

Preprocess = Literal["mnist", "resize", "none"]
Shape = tuple[int, int, int]
DARK_ON_LIGHT = "dark on light, but the network takes light ink on a dark background; leave out --preprocess none"


class Prepared(NamedTuple):
    """An image in the form that a network takes.

    Attributes:
        pixels: (C, H, W) uint8.
        notes: what may be wrong with it; usually empty.
        row: of several digits in an image, from 1.
        is_photograph: whether a digit was found in a photograph, which may as well show something else.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    row: int = 1
    is_photograph: bool = False


Reader = Callable[[Image.Image], list[Prepared]]  # raises ImageError


def make_reader(preprocess: Preprocess, image_shape: Shape, *, ink_on_paper: bool = False) -> Reader:
    """Return a function that brings an image, upright and in any mode, into the form that a network takes.

    Args:
        preprocess: `mnist` brings the ink into MNIST's form; `resize` scales the image to cover the network's height
            and width, and cuts off the rest, as the data sets do; `none` takes images of this size only.
        image_shape: channels, height and width that the network takes.
        ink_on_paper: whether the network takes light ink on a dark background, see `data_form`. `none` then notes
            an image that is dark on light.

    Examples:
        >>> [prepared.pixels.shape for prepared in make_reader("resize", (3, 32, 32))(Image.new("L", (90, 60)))]
        [(3, 32, 32)]
    """
    if preprocess == "mnist":
        return lambda image: [
            Prepared(digit.pixels[np.newaxis], digit.notes, digit.row, digit.is_photograph)
            for digit in find_digits(plain(image))
        ]
    if preprocess == "resize":
        return lambda image: [Prepared(resized(image, image_shape))]
    return partial(_unchanged, image_shape=image_shape, ink_on_paper=ink_on_paper)


def preprocess_for(data: "ClassificationDataModule", given: Preprocess | Literal["auto"]) -> Preprocess:
    """Return how images are prepared for a network that is trained on these data.

    Raises:
        RequestError: it is `mnist`, but the network does not take ink on paper of 28 x 28 pixels.
    """
    name = data.hparams["dataset"] if data.hparams["folder"] is None else data.hparams["folder"]
    is_ink = given != "none" and given != "resize" and is_ink_on_paper(data)
    if given == "auto":
        return "mnist" if is_ink else "resize"
    if given == "mnist" and not is_ink:
        raise RequestError(
            f"preprocess is mnist, which is for images like those of {', '.join(NAMED)}, of 1 x {SIDE} x {SIDE}, but "
            f"the network takes images of {name} of {' x '.join(map(str, data.image_shape))}. Leave preprocess out, "
            "and the images are resized."
        )
    return given


def resized(image: Image.Image, image_shape: Shape) -> NDArray[np.uint8]:
    """Return an image scaled to cover the height and width, and cut at two opposite sides to have exactly these.

    Raises:
        ImageError: its pixels have 32 bits.
    """
    channels, height, width = image_shape
    try:
        return ImageForm((height, width), 1 if channels == 1 else 3).apply(pixels(image)[None])[0].numpy()
    except ValueError as error:
        raise ImageError(f"can't be read: {error}") from error


def is_dark_on_light(image: NDArray[np.uint8]) -> bool:
    """Return whether the border of an image (C, H, W) is lighter than the image is on average."""
    return bool(are_dark_on_light(torch.from_numpy(image[np.newaxis])))


def _unchanged(image: Image.Image, image_shape: Shape, ink_on_paper: bool) -> list[Prepared]:
    """Take an image that has the height and width already.

    Raises:
        ImageError: it has another size, or transparent parts.
    """
    _, height, width = image_shape
    if image.size != (width, height):
        raise ImageError(f"not {height} x {width} pixels; leave out --preprocess none")
    if plain(image).mode == "RGBA":
        raise ImageError("transparent parts; leave out --preprocess none")
    taken = resized(image, image_shape)
    return [Prepared(taken, (DARK_ON_LIGHT,) * (ink_on_paper and is_dark_on_light(taken)))]
