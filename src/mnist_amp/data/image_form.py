"""The form of the images in memory: their size and their number of channels."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_amp.errors import RequestError

VALUES = 2**22  # of the images that are converted together, so that a conversion needs little memory beside its result
# of red, green and blue, in 65536ths; Pillow's conversion to L has the same
GREY_WEIGHTS = (19595, 38470, 7471)


class ImageForm(NamedTuple):
    """The form that images are converted to; None keeps what they have.

    Attributes:
        size: height and width; images are scaled to cover it, and the rest is cut off at both sides.
        channels: 1 (grey) or 3 (RGB).
    """

    size: tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the shape (C, H, W) that an image of this shape is converted to."""
        return (self.channels or channels, *(self.size or (height, width)))

    def apply(self, images: Tensor) -> Tensor:
        """Convert images (N, C, H, W) uint8. Beside the result, this takes a constant amount of memory.

        >>> images = torch.tensor([0, 100, 100, 200], dtype=torch.uint8).reshape(1, 1, 2, 2)
        >>> ImageForm(size=(1, 1), channels=3).apply(images).flatten()
        tensor([100, 100, 100], dtype=torch.uint8)
        """
        found: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        shape = self.shape(*found)
        if shape == found:
            return images.contiguous()
        converted = images.new_empty(len(images), *shape)
        together = max(1, VALUES // max(math.prod(found), math.prod(shape)))
        for block, target in zip(torch.split(images, together), torch.split(converted, together), strict=True):
            grey_or_colour = to_grey(block) if self.channels == 1 else block
            target.copy_(_resize(grey_or_colour, shape[1:]))  # repeats a grey image for each channel
        return converted


def make_form(image_size: int | tuple[int, int] | None, channels: int | None) -> ImageForm:
    """Return the form that the options ask for.

    Raises:
        RequestError: an option is out of range.
    """
    sizes = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sizes is not None and (len(sizes) != 2 or any(type(side) is not int or side < 1 for side in sizes)):
        raise RequestError(
            f"data.image_size is {image_size}; it must be a number of pixels from 1, or two: height and width."
        )
    if channels not in (None, 1, 3):
        raise RequestError(f"data.channels is {channels}; it must be 1 (grey) or 3 (RGB).")
    return ImageForm(None if sizes is None else (sizes[0], sizes[1]), channels)  # type: ignore[arg-type]


def to_grey(images: Tensor) -> Tensor:
    """Convert RGB images (N, 3, H, W) uint8 to grey ones (N, 1, H, W), as Pillow does; grey ones are unchanged."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(GREY_WEIGHTS, dtype=torch.int32).reshape(3, 1, 1)
    grey = ((images.to(torch.int32) * weights).sum(1, keepdim=True, dtype=torch.int32) + 0x8000) >> 16
    return grey.to(torch.uint8)


def are_dark_on_light(images: Tensor) -> Tensor:
    """Return whether the border of each image (N, C, H, W) is lighter than the image is on average, (N,) bool.

    >>> image = torch.full((1, 1, 5, 5), 255, dtype=torch.uint8)
    >>> image[0, 0, 2, 2] = 0
    >>> are_dark_on_light(torch.cat([image, 255 - image]))
    tensor([ True, False])
    """
    inner = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
    inner[1:-1, 1:-1] = True
    border = images[..., ~inner].flatten(1)
    return border.median(dim=1).values > images.flatten(1).float().mean(dim=1)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale images to cover a size, and cut off the rest at both sides, so that nothing is distorted."""
    found = images.shape[2:]
    if found == size:
        return images
    scale = max(wanted / side for wanted, side in zip(size, found, strict=True))
    cover = [max(round(side * scale), wanted) for wanted, side in zip(size, found, strict=True)]
    top, left = ((side - wanted) // 2 for side, wanted in zip(cover, size, strict=True))
    scaled = F.interpolate(images, cover, mode="bilinear", antialias=True)
    return scaled[:, :, top : top + size[0], left : left + size[1]]


def different_sizes(where: str, examples: Mapping[tuple[int, int], str]) -> RequestError:
    """Return the error for images of different sizes.

    Args:
        where: names the images' data set.
        examples: for each size (height, width), the name of an image that has it.
    """
    shown = [f"{height} x {width} ({name})" for (height, width), name in list(examples.items())[:3]]
    more = f" and {len(examples) - 3} other sizes" if len(examples) > 3 else ""
    listed = ", ".join(shown) if more else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return RequestError(
        f"{where} has images of different sizes (height x width): {listed}{more}. Resize all images with "
        "--data.image_size, such as --data.image_size 64 or --data.image_size [48,64]."
    )


def grey_and_colour(where: str, grey: str, colour: str) -> RequestError:
    """Return the error for a data set with a grey image and a colour image, which are named."""
    return RequestError(
        f"{where} has grey images ({grey}) and colour images ({colour}). Convert all images with --data.channels 1 "
        "or --data.channels 3."
    )
