"""Picture files, brought into MNIST's own form; Pillow and numpy alone, no torch.

The form, as the data set's authors describe it and as its images are: ink light on dark; the digit's box scaled to fit
20 x 20 by its aspect; moved by whole pixels, so that the centre of its mass comes to the centre of 28 x 28.
(Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits.)
"""

import functools
import os
import warnings
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_amp.errors import RequestError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # of Pillow's, those that run no other program
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SIDE, BOX, CENTRE = 28, 20, 14
MOST_PIXELS = 100_000_000
WORK = 768  # pixels of the longer side that a digit is looked for in: one of a 38th of that still has 20
VISIBLE = 25  # levels of 255 that ink must differ from its paper by
NOISE = 7  # times the paper's own spread that it must differ by
NEAR = 6  # levels that paper of one colour differs by from it
PLAIN = 0.4  # of the border that must be of one colour, or the light is uneven; the rest may be ink
INK = 0.2  # of the darkest ink: what counts as part of the digit's box, as in all of MNIST's images
FULL = 75  # percentile of the ink in a scaled box that is as dark as ink can be
SPECK = 0.02  # of all the ink: what stands apart and has less is none of the digit

Grey = NDArray[np.float32]


class ImageError(ValueError):
    """A picture can't be used; the message says why."""


class NoInkError(ImageError):
    """There is nothing on it."""


def found(paths: Iterable[str]) -> list[Path]:
    """Return the files that paths name: a file itself, a folder's pictures at any depth, what matches a pattern.

    A file that is named twice, by a link or in another way, comes once; hidden files come only if they are named.

    Raises:
        RequestError: a folder holds no pictures, nothing matches a pattern, or a name is empty.
    """
    files: dict[str, Path] = {}
    for given in map(os.path.expanduser, paths):
        path, is_folder = Path(given), bool(given) and os.path.isdir(given)
        if is_folder:
            inside = path.rglob("[!.]*")
            here = sorted(file for file in inside if file.suffix.lower() in SUFFIXES and not os.path.isdir(file))
        elif has_magic(given) and not os.path.exists(given):
            here = sorted(Path(file) for file in glob(given, recursive=True) if os.path.isfile(file))
        else:
            here = [path] if given else []
        if not here:
            what = "is no name" if not given else "holds no pictures" if is_folder else "matches no file"
            raise RequestError(f"{printable(given) or repr('')} {what}; pictures end in {', '.join(SUFFIXES)}.")
        for file in here:
            files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def printable(name: Path | str) -> str:
    """Return a file's name as text of a line, whatever characters and bytes it is made of."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def read(path: Path) -> Image.Image:
    """Read a picture, upright, in the modes L, RGB or RGBA; of several frames the first.

    Raises:
        ImageError: it is none, is damaged, or is too large.
    """
    if not os.path.isfile(path):
        raise ImageError("it is not a file" if os.path.exists(path) else "there is no such file")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            image.draft("RGB", (WORK, WORK))  # a JPEG is decoded at a fraction of its size
            image.load()
            return _plain(_upright(image))
    except UnidentifiedImageError as error:
        raise ImageError(f"it is no picture of a kind that is read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"it has more than the {MOST_PIXELS:,} pixels that are read; scale it down") from error
    except Exception as error:  # a damaged file comes as many kinds of error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"it can't be read: {reason}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # what says which way up it is makes no sense, of which there are many kinds
        return image


def _plain(image: Image.Image) -> Image.Image:
    """Return a picture of 8 bits in the modes L, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):  # 16 bits and more, which Pillow would cut off at 255
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # what white is, of the levels that cameras and scanners count to
        tops = [1.0] * (image.mode == "F") + [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
        top = next((top for top in tops if values.max() <= top), values.max())
        return Image.fromarray((values * (255 / top)).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def as_is(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture that is in MNIST's form already, (28, 28).

    Raises:
        ImageError: it is of another size, or transparent.
    """
    if image.size != (SIDE, SIDE):
        raise ImageError("it is not 28 x 28 pixels; leave out --preprocess none")
    if image.mode == "RGBA":
        raise ImageError("it has transparent parts; leave out --preprocess none")
    return np.asarray(image.convert("L"))


def mnist_form(image: Image.Image) -> NDArray[np.uint8]:
    """Bring a picture of one digit, in whatever colours, into MNIST's form, (28, 28).

    Raises:
        NoInkError: nothing on it stands out from its background.
    """
    if (factor := WORK / max(image.size)) < 1:
        size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2)
    scaled = _scaled(_cropped(_ink(_opaque(image))))
    rows, columns = (scaled.sum(axis=axis) for axis in (1, 0))
    placed = np.zeros((SIDE, SIDE), dtype=np.float32)
    top, left = _shift(rows), _shift(columns)
    placed[top : top + len(rows), left : left + len(columns)] = scaled
    return (placed * 255).round().astype(np.uint8)


def _opaque(image: Image.Image) -> Grey:
    """Return a picture as levels (height, width, channels), what is transparent as paper that its ink stands out from.

    What can be seen of a transparent picture is its ink, and if that is of several colours and most of it, paper, too.
    """
    levels = np.asarray(image, dtype=np.float32)
    if image.mode != "RGBA":
        return levels.reshape(*levels.shape[:2], -1)
    colours, alpha = levels[..., :3], levels[..., 3:] / 255
    seen = colours[alpha[..., 0] > 0.5]
    if alpha.mean() > 0.5 and np.ptp(seen, axis=0).max() >= VISIBLE:
        paper = np.median(seen, axis=0)
    else:
        paper = np.full(3, 255.0 if len(seen) == 0 or seen.mean() < 128 else 0.0)
    opaque = colours * alpha + paper * (1 - alpha)
    around = np.pad(opaque - paper, ((1, 1), (1, 1), (0, 0))) + paper  # it may be cut off where its ink ends
    return np.asarray(around, dtype=np.float32)


def _ink(levels: Grey) -> Grey:
    """Return how much ink is where, 0 to 1, as the difference from the paper: dark on light, light on dark, colours."""
    paper = _paper(levels)
    difference = functools.reduce(np.maximum, np.moveaxis(np.abs(levels - paper), 2, 0))
    # of normally distributed noise, the standard deviation, also where ink is on most of the border
    noise = float(np.quantile(_border(difference), 0.25)) / 0.319
    most = float(difference.max())
    if most < max(VISIBLE, NOISE * noise):
        raise NoInkError("no ink: nothing stands out from the background")
    floor = 3 * noise
    return np.asarray(((difference - floor) / (most - floor)).clip(0, 1))


def _paper(levels: Grey) -> Grey:
    """Return the paper's levels: one colour, or where the border is not of one, a smooth shade over the picture."""
    border = _border(levels)
    colour, share = _commonest(border)
    if share > PLAIN:
        return colour
    height, width = levels.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2).astype(np.float32)
    step = max(len(border) // 2000, 1)
    near, border = _border(terms)[::step], border[::step]
    weights = np.ones((len(border), 1), dtype=np.float32)
    # or there is no solution for a picture of a single row, which has no shade down
    trifle = np.eye(6, dtype=np.float32) / 1000
    for _ in range(8):  # least absolute differences, by weighted least squares: the digit may reach to the border
        weighted = near * weights
        shade: Grey = np.linalg.solve(weighted.T @ near + trifle, weighted.T @ border)
        weights = 1 / np.abs(near @ shade - border).max(axis=1, keepdims=True).clip(1)
    return terms @ shade


def _commonest(border: Grey) -> tuple[Grey, float]:
    """Return the colour that most of the border is of, or nearly, and how much of it that is, 0 to 1."""
    bins = (border // (2 * NEAR)).astype(np.int64) @ np.array([1, 256, 65536])[: border.shape[1]]
    values, counts = np.unique(bins, return_counts=True)
    colour = np.median(border[bins == values[counts.argmax()]], axis=0)
    near = (np.abs(border - colour) <= NEAR).all(axis=1)
    return np.asarray(np.median(border[near], axis=0), dtype=np.float32), float(near.mean())


def _border(values: Grey) -> Grey:
    """Return the values along the four sides, (n, ...)."""
    deep = max(min(values.shape[:2]) // 28, 1)
    sides = values[:deep], values[-deep:], values[:, :deep], values[:, -deep:]
    return np.concatenate([side.reshape(-1, *values.shape[2:]) for side in sides])


def _cropped(ink: Grey) -> Grey:
    """Return the digit's box, without specks that stand apart from it."""
    for axis in (1, 0, 1, 0):
        start, end = _extent((ink * (ink > INK)).sum(axis=axis))
        ink = ink[start:end] if axis == 1 else ink[:, start:end]
    return ink


def _extent(profile: Grey) -> tuple[int, int]:
    """Return where the ink in a profile starts and ends, but for runs at its ends that have next to none of it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], profile > 0, [0]])))
    runs = edges.reshape(-1, 2)
    large = [(start, end) for start, end in runs if profile[start:end].sum() >= SPECK * profile.sum()] or runs
    return int(large[0][0]), int(large[-1][1])


def _scaled(ink: Grey) -> Grey:
    """Scale a box to fit 20 x 20 by its aspect; a line thinner than a pixel becomes no fainter."""
    height, width = ink.shape
    factor = BOX / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    if size == (width, height):
        return np.asarray(ink / ink.max())
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    scaled = np.asarray(Image.fromarray(ink).resize(size, how), dtype=np.float32)
    full = np.percentile(scaled[scaled > INK * scaled.max()], FULL)
    return np.asarray((scaled / full).clip(0, 1), dtype=np.float32)


def _shift(profile: Grey) -> int:
    """Return by how many pixels to move a profile, so that its centre of mass comes to the centre of the image."""
    centre = float(np.average(np.arange(len(profile)), weights=profile))
    return min(max(round(CENTRE - centre), 0), SIDE - len(profile))
