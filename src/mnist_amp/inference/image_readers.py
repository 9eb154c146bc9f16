"""Image files read in the form that a network takes: as MNIST's ink on paper, resized, or unchanged."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mnist_amp.data.decoding import pixels
from mnist_amp.data.image_form import ImageForm
from mnist_amp.errors import RequestError
from mnist_amp.inference.data_form import NAMED, is_ink_on_paper
from mnist_amp.inference.image_files import read_image, read_upright
from mnist_amp.inference.mnist_form import SIDE, ImageError, mnist_form

if TYPE_CHECKING:
    from mnist_amp.data import ClassificationDataModule

Preprocess = Literal["mnist", "resize", "none"]
Shape = tuple[int, int, int]
Reader = Callable[[Path], NDArray[np.uint8]]  # returns pixels (C, H, W); raises ImageError


def make_reader(preprocess: Preprocess, image_shape: Shape) -> Reader:
    """Return a function that reads an image file in the form that a network takes.

    Args:
        preprocess: `mnist` brings the ink into MNIST's form; `resize` scales the image to cover the network's height
            and width, and cuts off the rest, as the data sets do; `none` takes images of this size only.
        image_shape: channels, height and width that the network takes.

    Examples:
        >>> make_reader("resize", (3, 32, 32))(Path("photo.jpg")).shape
        (3, 32, 32)
    """
    if preprocess == "mnist":
        return lambda path: mnist_form(read_image(path))[np.newaxis]
    return partial(resized if preprocess == "resize" else unchanged, image_shape=image_shape)


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


def resized(path: Path, image_shape: Shape) -> NDArray[np.uint8]:
    """Read an image, scaled to cover the height and width, and cut at two opposite sides to have exactly these."""
    channels, height, width = image_shape
    try:
        return ImageForm((height, width), 1 if channels == 1 else 3).apply(pixels(read_upright(path))[None])[0].numpy()
    except (ValueError, OSError) as error:
        raise error if isinstance(error, ImageError) else ImageError(f"can't be read: {error}") from error


def unchanged(path: Path, image_shape: Shape) -> NDArray[np.uint8]:
    """Read an image that has the height and width already.

    Raises:
        ImageError: it has another size, or transparent parts.
    """
    _, height, width = image_shape
    image = read_image(path, shrink=False)
    if image.size != (width, height):
        raise ImageError(f"not {height} x {width} pixels; leave out --preprocess none")
    if image.mode == "RGBA":
        raise ImageError("transparent parts; leave out --preprocess none")
    return resized(path, image_shape)
