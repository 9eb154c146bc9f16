"""Find the ink in an image with OpenCV: without uneven light, shadows, a table, ruled lines and the boxes of forms.

Imported only when an image is read: `import cv2` takes time, and OpenCV may be missing.

    levels --(paper)--> where the paper is --(contrast)--> grey, dark on light --(closing)--> ink --(lines)--> ink
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_amp.images.mnist_form import NO_INK, NoInkError, border, even_ink, is_even
from mnist_amp.images.printed_lines import LINE, STROKE_INK, Plane, connected, square, without_lines

ESTIMATE_SIDE = 100  # pixels of the longer side in which paper, polarity and colours are estimated
STROKE = 0.21  # of the longer side, in a wide image 4/3 of the height: the widest stroke; wider ones lose their middle
LIGHT = 1  # of 255: how much nearer to the darkest than to the lightest level near it an image is, if its ink is light
FAINT = 22  # of 255: the least contrast of ink; pencil has 29 and more, shades of blank paper at most 16
PHOTO_SIGMAS = 5  # the least contrast of ink, in standard deviations of the noise
STRONG = 128  # of 255: ink that each part of a photographed digit has somewhere
SMALLEST_PART = 0.02  # of the strong ink of the largest part: a part that has less is a speck
GRAIN = 0.025  # of the longer side: the largest part that is grain of the paper; a digit of 768 pixels' 1/38 has 20


class Parts(NamedTuple):
    """Ink in connected parts.

    Attributes:
        ink: amount of ink (height, width), 0 to 255; 0 where there is no part.
        labels: (height, width), the number of the part that a pixel belongs to; 0 for none and for specks.
        boxes: (N, 4), left, top, right and bottom of each part, in the order of `numbers`.
        numbers: (N,) of the parts.
        cut: whether the parts reach the edge of the paper, because there are no others.
        is_photograph: whether the paper has noise or uneven light at the edge of the image, or is not seen there.
    """

    ink: Plane
    labels: NDArray[np.int32]
    boxes: NDArray[np.int32]
    numbers: NDArray[np.int64]
    cut: bool
    is_photograph: bool


def find_parts(levels: NDArray[np.uint8]) -> Parts:
    """Return the ink of an image, in connected parts.

    Args:
        levels: (height, width, channels), dark on light or light on dark.

    Raises:
        NoInkError: nothing stands out from the paper.

    Examples:
        >>> find_parts(np.asarray(Image.open("photo.jpg"))).boxes
        array([[ 61, 120, 148, 301], [171, 118, 290, 305]], dtype=int32)
    """
    if is_even(levels):
        ink = (even_ink(levels) * 255).astype(np.uint8)
        # otherwise the border is a table, and most of the image is a sheet of paper
        if (ink > STROKE_INK).mean() < 0.5:
            return _parts(without_lines(ink, np.ones_like(ink)), None)
    ink, paper = _photographed_ink(levels)
    return _parts(without_lines(ink, paper), paper)


def _parts(ink: Plane, paper: Plane | None) -> Parts:
    """Return the parts that are no specks and, in a photograph, do not reach the paper's edge, if there are such."""
    side = max(ink.shape)
    mask = (ink > STROKE_INK).astype(np.uint8)
    strong = mask
    if paper is not None:  # what is left of pale lines is far from strong ink
        strong = (ink > STRONG).astype(np.uint8)
        mask &= cv2.dilate(strong, square(2 * int(LINE * side) + 1))
    labels, stats = connected(mask)
    step = 2 if side > ESTIMATE_SIDE else 1  # a sample is faster
    amounts = np.bincount(labels[::step, ::step][strong[::step, ::step] > 0], minlength=len(stats))
    amounts[0] = 0
    cut = False
    if paper is not None:
        amounts[np.maximum(stats[:, 2], stats[:, 3]) < GRAIN * side] = 0
        inner = cv2.erode(paper, square(3), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        inside = amounts.copy()
        inside[labels.ravel()[np.flatnonzero(paper > inner)]] = 0
        cut = not inside.any()
        amounts = amounts if cut else inside
    numbers = np.flatnonzero(amounts > SMALLEST_PART * amounts.max())
    if len(numbers) == 0:
        raise NoInkError(NO_INK)
    left, top, width, height, _ = stats[numbers].T
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    return Parts(ink * cv2.dilate(mask, square(5)), labels, boxes, numbers, cut, paper is not None)


def _photographed_ink(levels: NDArray[np.uint8]) -> tuple[Plane, Plane]:
    """Return ink and the mask of the paper: how much darker a pixel is than the paper near it."""
    height, width = levels.shape[:2]
    side = max(height, width)
    small = levels
    factor = min(-(-side // ESTIMATE_SIDE), width, height)
    if factor > 1:  # a whole number is five times as fast
        size = width // factor, height // factor
        cut = levels[: size[1] * factor, : size[0] * factor]
        small = cv2.resize(cut, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    paper = _paper_mask(small)
    weights = _contrast(small, paper)
    grey = cv2.transform(levels, np.append(weights, 255 * -weights[weights < 0].sum())[None])
    grey = (cv2.GaussianBlur(grey, (5, 5), 0) if side > ESTIMATE_SIDE else grey).reshape(height, width)
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_NEAREST)
    background = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, _widest_stroke(grey))
    ink = 255 - cv2.divide(grey, cv2.max(background, 1), scale=255)
    # the paper has the least ink, and half of a crop may be ink
    counts = cv2.calcHist([ink], [0], paper, [256], [0, 256]).cumsum()
    lowest, low, most, rare = np.searchsorted(counts, counts[-1] * np.array([0.05, 0.3, 0.995, 0.9995])).tolist()
    noise = (low - lowest) / 1.17 + 0.5
    middle = low + 0.4 * noise
    least = middle + max(FAINT, PHOTO_SIGMAS * noise)
    if most < least:  # one digit on a large page, but not the grain of blank paper
        most, least = rare, 2 * least - middle
    if most < least:
        raise NoInkError(NO_INK)
    floor = middle + 3 * noise
    table = (255 * (np.arange(256) - floor) / (most - floor)).clip(0, 255).astype(np.uint8)
    return cv2.LUT(ink, table) * paper, paper


def _paper_mask(small: NDArray[np.uint8]) -> Plane:
    """Return 1 where the paper is, 0 on a darker table around it. Without a table, all is paper."""
    bright = cv2.medianBlur(functools.reduce(cv2.max, cv2.split(small)), 3)
    _, mask = cv2.threshold(bright, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    sheet = max(contours, key=cv2.contourArea, default=None)
    everything: Plane = np.ones_like(mask)
    if sheet is None:
        return everything
    hull = cv2.convexHull(sheet)
    paper = cv2.fillConvexPoly(np.zeros_like(mask), hull, 1)
    area = cv2.contourArea(hull)
    # a sheet is convex and large, and the light part of a shadowed image reaches more of the border
    if area < 0.4 * mask.size or cv2.contourArea(sheet) < 0.9 * area or border(paper).mean() > 0.3:
        return everything
    return np.asarray(cv2.erode(paper, square(5), borderType=cv2.BORDER_REPLICATE))  # without its edge's shadow


def _widest_stroke(image: NDArray[np.uint8]) -> Plane:
    """Return a square as wide as the widest stroke, which does not grow with the length of a row of digits."""
    height, width = image.shape[:2]
    return square(int(STROKE * max(height, min(width, 4 / 3 * height))))


def _contrast(small: NDArray[np.uint8], paper: Plane) -> NDArray[np.float64]:
    """Return weights of the channels: how much the ink stands out in each; all negative for light ink on dark paper."""
    if not paper.all():
        small = np.where(paper[..., None], small, np.median(small[paper > 0], axis=0).astype(np.uint8))
    kernel = _widest_stroke(small)
    # near a stroke, there is more paper than ink; near the edge of a shadow, as much light as shadow
    dark = cv2.dilate(small, kernel).mean() + cv2.erode(small, kernel).mean() - 2 * small.mean() < LIGHT
    without_ink = cv2.morphologyEx(small, cv2.MORPH_CLOSE if dark else cv2.MORPH_OPEN, kernel)
    stands_out = cv2.absdiff(without_ink, small).reshape(-1, small.shape[2])
    weights = np.quantile(stands_out[::3], 0.98, axis=0) + 1
    return np.asarray((weights if dark else -weights) / weights.sum())
