"""Pixels of images that Pillow reads: grey or RGB, upright, 8 bits, transparent parts on white."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mnist_amp.errors import RequestError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # those of Pillow's that run no other program
GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """The content of the header of an image file; the size is that of the upright image."""

    height: int
    width: int
    grey: bool


def read_header(path: Path) -> Header:
    """Read the header of an image file, not its pixels.

    Raises:
        RequestError: the file is not a readable image.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            return Header(height, width, image.mode in GREY_MODES)
    except Exception as error:  # of many kinds, by format
        raise _unreadable(path, error) from error


def read_pixels(path: Path) -> Tensor:
    """Return the pixels of an image file, as `pixels` does.

    Raises:
        RequestError: the file is not a readable image.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            return pixels(image)
    except Exception as error:  # of many kinds, by format
        raise _unreadable(path, error) from error


def pixels(image: Image.Image) -> Tensor:
    """Return the pixels of an upright image: (1, H, W) uint8 if it is grey, else (3, H, W).

    Images with 16 bits are reduced to 8. Transparent parts are laid on white. Only the first frame is read.

    Raises:
        ValueError: the pixels have 32 bits.
    """
    orientation, grey = _orientation(image), image.mode in GREY_MODES
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}); save it with 8 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if grey else "RGB")
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    array = np.array(image)
    return torch.from_numpy(array[None] if grey else array.transpose(2, 0, 1).copy())


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation from 1 to 8, without decoding the image.

    Pillow applies that of TIFF itself; not correctly to a file that it maps into memory, and so files are opened here.
    To find that of a PNG which has none before its pixels, it would decode them.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if orientation in UPRIGHT else 1


def _unreadable(path: Path, error: Exception) -> RequestError:
    unknown = isinstance(error, UnidentifiedImageError)
    reason = f"it is none of {', '.join(FORMATS)}" if unknown else str(error).strip() or type(error).__name__
    return RequestError(f"{path} can't be read as an image: {reason}. Repair it or move it away.")
