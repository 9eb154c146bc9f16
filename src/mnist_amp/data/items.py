"""Items (image, label) of a map-style dataset, read into one tensor."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnist_amp.data.decoding import pixels
from mnist_amp.data.image_form import ImageForm, different_sizes, grey_and_colour
from mnist_amp.data.image_set import ImageSet
from mnist_amp.data.parallel import map_in_threads
from mnist_amp.errors import RequestError


def read_items(
    dataset: Any, name: str, shape: tuple[int, int, int], form: ImageForm, *, in_threads: bool = False
) -> ImageSet:
    """Read all items of a dataset.

    Args:
        dataset: has `__len__`, and `__getitem__` that returns an image and its label.
        name: of the dataset in a sentence, such as `the test set of GTSRB`.
        shape: channels, height and width of the converted images.
        form: the form that images are converted to.
        in_threads: whether items may be read at the same time.

    Raises:
        RequestError: an item can't be read, or has another size or other channels.
    """
    images = torch.empty(len(dataset), *shape, dtype=torch.uint8)
    labels = torch.empty(len(dataset), dtype=torch.int64)

    def read(index: int) -> None:
        image, label = read_item(dataset, index, name)
        images[index], labels[index] = _fitted(image, shape, form, name, index), label

    for _ in (map_in_threads if in_threads else map)(read, range(len(dataset))):
        pass
    return ImageSet(images, labels)


def read_item(dataset: Any, index: int, name: str) -> tuple[Tensor, int]:
    """Read an item: its image (C, H, W) uint8 with 1 or 3 channels, and its label.

    Raises:
        RequestError: the item can't be read.
    """
    try:
        image, label = dataset[index]
    except Exception as error:
        raise RequestError(
            f"Item {index} of {name} can't be read as an image and its label: {described(error)}."
        ) from error
    try:
        return image_pixels(image), label_number(label)
    except (ValueError, OSError) as error:
        raise RequestError(f"Item {index} of {name} can't be used: {error}.") from error


def image_pixels(image: object) -> Tensor:
    """Return the pixels (C, H, W) uint8 of an image of any kind, with 1 or 3 channels.

    Args:
        image: of Pillow; a tensor (H, W) or (C, H, W); or an array (H, W), (H, W, C) or (C, H, W). Values are uint8, or
            floats from 0 to 1.

    Raises:
        ValueError: it is of another kind, or has other values.

    Examples:
        >>> image_pixels(torch.tensor([[0.0, 1.0]]))
        tensor([[[  0, 255]]], dtype=torch.uint8)
    """
    if isinstance(image, Image.Image):
        return pixels(image)
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"its image is a {type(image).__name__}; give a Pillow image, a tensor or an array")
    tensor = torch.as_tensor(image)
    if tensor.ndim == 2:
        tensor = tensor.unsqueeze(0)
    elif tensor.ndim == 3 and isinstance(image, np.ndarray) and tensor.shape[2] in (1, 3):
        tensor = tensor.permute(2, 0, 1)
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"its image has the shape {tuple(image.shape)}; give (H, W), or 1 or 3 channels")
    return _bytes(tensor)


def _bytes(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(f"its image has values of {str(image.dtype).removeprefix('torch.')}; give uint8 or float32")
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(
            f"its image has floats from {image.min():g} to {image.max():g}; give floats from 0 to 1, without Normalize"
        )
    return image.mul(255).round().to(torch.uint8)


def label_number(label: object) -> int:
    """Return a label as an int.

    Raises:
        ValueError: it is not a whole number.
    """
    if isinstance(label, Tensor | np.ndarray | np.generic):
        with suppress(ValueError, RuntimeError):  # more than one value
            label = label.item()
    if not isinstance(label, int):
        raise ValueError(f"its label is {label!r}; give an int from 0")
    return label


def _fitted(image: Tensor, shape: tuple[int, int, int], form: ImageForm, name: str, index: int) -> Tensor:
    """Convert an image to a shape; only a grey image may differ from it, beyond what the form converts."""
    image = form.apply(image.unsqueeze(0))[0]
    height, width = image.shape[1:]
    where = name[0].upper() + name[1:]
    if (height, width) != shape[1:]:
        raise different_sizes(where, {shape[1:]: "image 0 of the training set", (height, width): f"image {index}"})
    if len(image) > shape[0]:
        raise grey_and_colour(where, "image 0 of the training set", f"image {index}")
    return image.expand(shape)


def described(error: Exception) -> str:
    """Return the kind of an error and its message, without a full stop."""
    message = str(error).strip().removesuffix(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
