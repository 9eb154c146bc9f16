"""Image files that Pillow opens, and their pixels: grey or RGB, upright, 8 bits, transparent parts on white."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

from mnist_amp.errors import RequestError

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".avif", ".heic", ".heif", ".hif"),
)
# the formats of Pillow's that run no other program, and the names of their modules and classes
FORMATS = {"PNG": "Png", "JPEG": "Jpeg", "BMP": "Bmp", "GIF": "Gif", "TIFF": "Tiff", "WEBP": "WebP", "AVIF": "Avif"}
HEIC = "HEIC"  # the format that pillow-heif opens
KNOWN_FORMATS = ", ".join([*FORMATS, HEIC])
SIGNATURES = {  # the first bytes of a file
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
AVIF_BRANDS = {b"avif", b"avis"}  # in the first box of a file of ISO's base media file format, which films also have
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
MAX_PIXELS = 100_000_000  # of an image that is decoded
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


class FormatError(ValueError):
    """A file can't be opened as an image; the message is complete, and names no file."""


class Header(NamedTuple):
    """The content of the header of an image file; the size is that of the upright image."""

    height: int
    width: int
    grey: bool


@contextlib.contextmanager
def open_image(path: Path, side: int | None = None) -> Iterator[ImageFile]:
    """Open an image file by its content, whatever its name is. The pixels are not decoded yet.

    Each format's class is used directly. `Image.open` would check the number of pixels of a JPEG before a fraction of
    it is decoded, with a limit and warnings that belong to the process instead of a thread.

    Args:
        path: of the file.
        side: a JPEG is decoded at a half, quarter or eighth of its height and width that has at least this many pixels
            on the shorter side; also if it has more than MAX_PIXELS and one scan.

    Raises:
        FormatError: the format is unknown or its package is missing, or there are too many pixels.

    Examples:
        >>> with open_image(Path("photo.jpg"), side=768) as image:
        ...     image.size
        (1008, 756)
    """
    with path.open("rb") as file, _image_class(_format(file))(file) as image:
        if image.format == "JPEG" and not _has_one_scan(image, file):
            check_size(image)
        shorter = min(image.size)
        fitting = next((shorter // part for part in (1, 2, 4) if _fits(image, part)), shorter // 8)
        if (wanted := min(fitting, side or fitting)) < shorter:
            image.draft(None, (wanted, wanted))
        check_size(image)
        yield image


def check_size(image: Image.Image) -> None:
    """Check the size of an image or of its current frame, before it is decoded.

    Raises:
        FormatError: there are too many pixels.
    """
    if not _fits(image):
        raise FormatError(f"more than {MAX_PIXELS:,} pixels; scale it down")


def is_image(path: Path) -> bool:
    """Return whether a file is an image: by its suffix, or, if it has none, by its content."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            _format(file)
        # a text may begin as an image does; an image that is too large, or whose package is missing, is one
        with contextlib.suppress(FormatError), open_image(path):
            pass
    except Exception:  # of many kinds, by format
        return False
    return True


def read_header(path: Path) -> Header:
    """Read the header of an image file, not its pixels.

    Raises:
        RequestError: the file is not a readable image.
    """
    try:
        with open_image(path) as image:
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
        with open_image(path) as image:
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


def _fits(image: Image.Image, part: int = 1) -> bool:
    """Return whether an image has at most MAX_PIXELS, at one part of its height and width."""
    return image.width * image.height <= MAX_PIXELS * part * part


def _has_one_scan(image: ImageFile, file: IO[bytes]) -> bool:
    """Return whether a JPEG has one scan. Of several, libjpeg keeps the coefficients of all pixels in memory.

    Several scans are progressive, or the first of them has some of the components only. Pillow has read its header.
    """
    components: int = image.layers  # type: ignore[attr-defined]
    file.seek(-8 - 2 * components, os.SEEK_CUR)
    has_all = file.read(5) == bytes([0xFF, 0xDA, 0, 6 + 2 * components, components])
    return has_all and "progressive" not in image.info


def _format(file: IO[bytes]) -> str:
    """Return the format of a file that is open at its start, and stay there."""
    head = file.read(64)
    file.seek(0)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, min(len(head), int.from_bytes(head[:4])), 4)}
        name = "AVIF" if brands & AVIF_BRANDS else HEIC if brands & HEIC_BRANDS else None
    else:
        name = next((name for start, name in SIGNATURES.items() if head.startswith(start)), None)
    if name is None:
        raise FormatError(f"not an image in a known format ({KNOWN_FORMATS})")
    return name


def _image_class(name: str) -> type[ImageFile]:
    """Return Pillow's or pillow-heif's class for a format."""
    try:
        if name == HEIC:
            return importlib.import_module("pillow_heif").HeifImageFile  # type: ignore[no-any-return]
        module = importlib.import_module(f"PIL.{FORMATS[name]}ImagePlugin")
    except ImportError as error:
        package = "the package pillow-heif: pip install 'mnist-amp[images]'" if name == HEIC else "Pillow 11.3 or newer"
        raise FormatError(f"{name} needs {package}") from error
    if not getattr(module, "SUPPORTED", True):
        raise FormatError(f"{name} needs a build of Pillow with {name}")
    return getattr(module, f"{FORMATS[name]}ImageFile")  # type: ignore[no-any-return]


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
    reason = str(error).strip() or type(error).__name__
    return RequestError(f"{path} can't be read as an image: {reason}. Repair it or move it away.")
