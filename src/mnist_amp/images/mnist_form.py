"""Images of digits, brought into MNIST's form, with Pillow and NumPy; it does not use torch.

The authors of MNIST describe its form, and its images have it: light ink on a dark background; the digit's box scaled
to fit 20 x 20 pixels, with its aspect ratio; moved by complete pixels, so that its centre of mass is in the centre of
28 x 28 pixels. (Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits.)
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, BOX, CENTRE = 28, 20, 14
MAX_SIDE = 768  # pixels of the longer side of an image in which a digit is searched; a digit of 1/38 of it has 20
CONTRAST = 25  # smallest difference between ink and its paper, in levels of 255
CONTRAST_SIGMAS = 7  # smallest difference between ink and its paper, in standard deviations of the paper's noise
SAME_COLOUR = 6  # largest difference of paper of one colour from this colour, in levels
EVEN = 0.6  # share of the border with nearly one colour in scans and drawings; photographs have at most 0.56
PLAIN = 0.4  # share of the border that has one colour if the light is even; the rest may be ink
INK = 0.2  # of the darkest ink: the least that counts as part of the digit's box, as in all of MNIST's images
FULL = 75  # percentile of the ink in a scaled box that becomes the darkest ink
SPECK_SHARE = 0.02  # of all ink: a part that is apart from the digit and has less is a speck

NO_INK = "no ink: nothing stands out from the background"

Levels = NDArray[np.float32]


class ImageError(ValueError):
    """An image can't be used; the message tells why, in words that follow the file's name and a colon."""


class NoInkError(ImageError):
    """The image is empty."""


def mnist_form(image: Image.Image) -> NDArray[np.uint8]:
    """Bring an image of one digit, of any size and in any colours, into MNIST's form.

    Args:
        image: in the mode L, RGB or RGBA, as `files.read_image` returns it.

    Returns:
        pixels (28, 28), with light ink on a dark background.

    Raises:
        NoInkError: nothing stands out from the background.

    Examples:
        >>> image = Image.new("RGB", (640, 480), "white")
        >>> ImageDraw.Draw(image).line([(200, 100), (400, 100), (300, 400)], "navy", width=20)
        >>> mnist_form(image).shape
        (28, 28)
    """
    return placed(_cropped(even_ink(opaque(reduced(image)))))


def reduced(image: Image.Image) -> Image.Image:
    """Return the image with at most MAX_SIDE pixels in its longer side."""
    if (factor := MAX_SIDE / max(image.size)) >= 1:
        return image
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2)


def placed(ink: Levels) -> NDArray[np.uint8]:
    """Bring the ink of a digit, 0 to 1, cut off where it ends, into MNIST's form: pixels (28, 28)."""
    scaled = _scaled(ink)
    rows, columns = (scaled.sum(axis=axis) for axis in (1, 0))
    form = np.zeros((SIDE, SIDE), dtype=np.float32)
    top, left = _shift(rows), _shift(columns)
    form[top : top + len(rows), left : left + len(columns)] = scaled
    return (form * 255).round().astype(np.uint8)


def opaque(image: Image.Image) -> NDArray[np.uint8]:
    """Return levels (height, width, channels), where a paper that the ink stands out from replaces transparency.

    The visible part of a transparent image is its ink. If most of the image is visible, in several colours, the visible
    part includes the paper.
    """
    if image.mode != "RGBA":
        return np.asarray(image).reshape(image.height, image.width, -1)
    levels = np.asarray(image, dtype=np.float32)
    colours, alpha = levels[..., :3], levels[..., 3:] / 255
    seen = colours[alpha[..., 0] > 0.5]
    if alpha.mean() > 0.5 and np.ptp(seen, axis=0).max() >= CONTRAST:
        paper = np.median(seen, axis=0)
    else:
        paper = np.full(3, 255.0 if len(seen) == 0 or seen.mean() < 128 else 0.0)
    opaque = colours * alpha + paper * (1 - alpha)
    around = np.pad(opaque - paper, ((1, 1), (1, 1), (0, 0))) + paper  # the image may end where its ink ends
    return around.round().astype(np.uint8)


def is_simple(image: Image.Image) -> bool:
    """Whether an image is a scan or a drawing, all of whose ink is above or below each other, as that of one digit."""
    levels = opaque(reduced(image))
    profile = even_ink(levels).sum(axis=0)
    return is_even(levels) and sum(profile[start:end].sum() > 0.2 * profile.sum() for start, end in _runs(profile)) < 2


def is_even(levels: NDArray[np.uint8]) -> bool:
    """Whether the paper has one colour, as in a scan or a drawing; in photographs it has noise and uneven light."""
    edge = border(levels)
    edge = edge[:: max(len(edge) // 2000, 1)]
    return bool((np.abs(edge - commonest(edge)[0]) <= 2).all(axis=1).mean() > EVEN)


def even_ink(levels: NDArray[Any]) -> Levels:
    """Return the amount of ink in each pixel, 0 to 1: the difference from the paper, whichever of them is darker."""
    levels = levels.astype(np.float32)
    paper = _paper_levels(levels)
    difference = functools.reduce(np.maximum, np.moveaxis(np.abs(levels - paper), 2, 0))
    # the standard deviation of normally distributed noise, even if most of the border is ink
    noise = float(np.quantile(border(difference), 0.25)) / 0.319
    largest = float(difference.max())
    if largest < max(CONTRAST, CONTRAST_SIGMAS * noise):
        raise NoInkError(NO_INK)
    floor = 3 * noise
    return np.asarray(((difference - floor) / (largest - floor)).clip(0, 1))


def _paper_levels(levels: NDArray[Any]) -> Levels:
    """Return the paper's levels: one colour, or, if the border has several, a smooth shade over the image."""
    edge = border(levels)
    colour, share = commonest(edge)
    if share > PLAIN:
        return colour
    height, width = levels.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2).astype(np.float32)
    step = max(len(edge) // 2000, 1)
    near, edge = border(terms)[::step], edge[::step]
    weights = np.ones((len(edge), 1), dtype=np.float32)
    # otherwise an image of a single row, which has no vertical shade, has no solution
    ridge = np.eye(6, dtype=np.float32) / 1000
    for _ in range(8):  # least absolute differences, by weighted least squares, because the digit may reach the border
        weighted = near * weights
        shade: Levels = np.linalg.solve(weighted.T @ near + ridge, weighted.T @ edge)
        weights = 1 / np.abs(near @ shade - edge).max(axis=1, keepdims=True).clip(1)
    return terms @ shade


def commonest(border: Levels) -> tuple[Levels, float]:
    """Return the border's most common colour, and the share of the border that has nearly this colour, 0 to 1."""
    border = border[:: max(len(border) // 2000, 1)]
    bins = (border // (2 * SAME_COLOUR)).astype(np.int64) @ np.array([1, 256, 65536])[: border.shape[1]]
    values, counts = np.unique(bins, return_counts=True)
    colour = np.median(border[bins == values[counts.argmax()]], axis=0)
    near = (np.abs(border.astype(np.float32) - colour) <= SAME_COLOUR).all(axis=1)
    return np.asarray(np.median(border[near], axis=0), dtype=np.float32), float(near.mean())


def border(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values along the four sides, (n, ...)."""
    depth = max(min(values.shape[:2]) // 28, 1)
    sides = values[:depth], values[-depth:], values[:, :depth], values[:, -depth:]
    return np.concatenate([side.reshape(-1, *values.shape[2:]) for side in sides])


def _cropped(ink: Levels) -> Levels:
    """Return the digit's box, without specks apart from it."""
    for axis in (1, 0, 1, 0):
        start, end = _extent((ink * (ink > INK)).sum(axis=axis))
        ink = ink[start:end] if axis == 1 else ink[:, start:end]
    return ink


def _extent(profile: Levels) -> tuple[int, int]:
    """Return where the ink in a profile starts and ends, except runs at its ends that have almost no ink."""
    runs = _runs(profile)
    large = [(start, end) for start, end in runs if profile[start:end].sum() >= SPECK_SHARE * profile.sum()] or runs
    return large[0][0], large[-1][1]


def _runs(profile: Levels) -> list[list[int]]:
    """Return the start and end of each part of a profile that has ink."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], profile > 0, [0]])))
    return edges.reshape(-1, 2).tolist()


def _scaled(ink: Levels) -> Levels:
    """Scale a box to fit 20 x 20, with its aspect ratio; a line thinner than a pixel does not become fainter."""
    height, width = ink.shape
    factor = BOX / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    if size == (width, height):
        return np.asarray(ink / ink.max())
    resampling = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    scaled = np.asarray(Image.fromarray(ink).resize(size, resampling), dtype=np.float32)
    full = np.percentile(scaled[scaled > INK * scaled.max()], FULL)
    return np.asarray((scaled / full).clip(0, 1), dtype=np.float32)


def _shift(profile: Levels) -> int:
    """Return how many pixels to move a profile, so that its centre of mass is in the centre of the image."""
    centre = float(np.average(np.arange(len(profile)), weights=profile))
    return min(max(round(CENTRE - centre), 0), SIDE - len(profile))
