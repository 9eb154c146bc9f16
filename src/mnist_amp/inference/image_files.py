"""The user's image files: found by name, and read with Pillow."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_amp.data.decoding import FORMATS, SUFFIXES
from mnist_amp.errors import RequestError
from mnist_amp.inference.mnist_form import MAX_SIDE, ImageError
from mnist_amp.wording import printable

MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class LoadedImage:
    """A file, and its image in the form that the network takes.

    Attributes:
        path: of the file.
        pixels: (C, H, W) uint8; zeros if the image can't be used.
        error: why the image can't be used; None if it can.
    """

    path: Path
    pixels: NDArray[np.uint8]
    error: ImageError | None


def find_images(paths: Iterable[str]) -> list[Path]:
    """Return the files that paths name: a file itself, a folder's images at any depth, or the files of a pattern.

    A file that is named twice, for instance by a link, is returned once. Hidden files are returned only if they are
    named.

    Raises:
        RequestError: a folder holds no images, no file matches a pattern, or a path is empty.

    Examples:
        >>> find_images(["scans", "photos/*.jpg", "seven.png"])
        [PosixPath('scans/1.png'), PosixPath('scans/old/2.tif'), PosixPath('photos/a.jpg'), PosixPath('seven.png')]
    """
    files: dict[str, Path] = {}
    for given in map(os.path.expanduser, paths):
        path, is_folder = Path(given), bool(given) and os.path.isdir(given)
        if is_folder:
            inside = path.rglob("[!.]*")
            found = sorted(file for file in inside if file.suffix.lower() in SUFFIXES and not os.path.isdir(file))
        elif has_magic(given) and not os.path.exists(given):
            found = sorted(Path(file) for file in glob(given, recursive=True) if os.path.isfile(file))
        else:
            found = [path] if given else []
        if not found:
            problem = "is not a name" if not given else "holds no images" if is_folder else "matches no file"
            raise RequestError(f"{printable(given) or repr('')} {problem}; images end in {', '.join(SUFFIXES)}.")
        for file in found:
            files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def load_image(path: Path, read: Callable[[Path], NDArray[np.uint8]], shape: tuple[int, int, int]) -> LoadedImage:
    """Read an image with a reader of `image_readers`. An image that can't be used becomes zeros of this shape."""
    try:
        return LoadedImage(path, read(path), None)
    except ImageError as error:
        return LoadedImage(path, np.zeros(shape, dtype=np.uint8), error)


def read_image(path: Path, *, shrink: bool = True) -> Image.Image:
    """Read an image, upright, in the mode L, RGB or RGBA. Of several frames, the first is read.

    Args:
        path: of the file.
        shrink: whether a large JPEG is decoded at a fraction of its size, which is faster.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.

    Examples:
        >>> read_image(Path("photo.jpg"))
        <PIL.Image.Image image mode=RGB size=1008x756>
    """
    with _reading(path):
        return _plain(_upright(_loaded(path, shrink)))


def read_upright(path: Path) -> Image.Image:
    """Read an image, upright, in the size and mode of its file.

    Raises:
        ImageError: as `read_image`.
    """
    with _reading(path):
        return _upright(_loaded(path, shrink=False))


def _loaded(path: Path, shrink: bool) -> Image.Image:
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if shrink:
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        image.load()
        return image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file into ImageError."""
    if not os.path.isfile(path):
        raise ImageError("not a file" if os.path.exists(path) else "no such file")
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels; scale it down") from error
    except Exception as error:  # damaged files cause errors of many types
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"can't be read: {reason}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # invalid EXIF data cause errors of many types
        return image


def _plain(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits in the mode L, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):  # 16 bits and more; Pillow would clip them at 255
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # the level of white: the lowest that cameras and scanners use and that is not exceeded
        tops = [1.0] * (image.mode == "F") + [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
        top = next((top for top in tops if values.max() <= top), values.max())
        return Image.fromarray((values * (255 / top)).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
