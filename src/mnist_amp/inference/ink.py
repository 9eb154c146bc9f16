"""Find the ink in an image with OpenCV: without uneven light, shadows, a table, ruled lines and the boxes of forms.

Imported only when an image is read: `import cv2` takes time, and OpenCV may be missing.

    levels --(paper)--> where the paper is --(contrast)--> grey, dark on light --(closing)--> ink --(lines)--> ink
"""

import functools
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_amp.inference.mnist_form import NO_INK, SPECK, NoInkError, border, even_ink, is_even

Plane = NDArray[Any]  # (H, W) uint8: ink from 0 to 255, or a mask of 0 and 1

SMALL = 100  # pixels of the longer side in which paper, polarity and colours are estimated
STROKE = 0.21  # of the longer side: the widest stroke; wider ones of thick pens lose their middle
DARK = 1.1  # how much rougher than the light parts an image may be without its dark parts, if its ink is dark
FAINT = 22  # of 255: the least contrast of ink; pencil has 29 and more, shades of blank paper at most 16
NOISE = 5  # the least contrast of ink, in standard deviations of the noise
VISIBLE = 51  # of 255: the least ink of a stroke, as in all of MNIST's images
STRONG = 128  # of 255: ink that each part has somewhere
GRAIN = 0.025  # of the longer side: the largest part that is grain of the paper; a digit of 768 pixels' 1/38 has 20
LINE = 0.02  # of the longer side: the widest printed line; pens of 1 % and less are as thin
RUN = 0.1  # of the longer side: the shortest line of a form's box
TILTS = range(-12, 13, 4)  # degrees of a line's rotation; each finds lines of +-3 degrees
NEAR = 4  # pixels of half the image's size: how far the lines of a box may be apart where they meet


class Segment(NamedTuple):
    """A straight line from (left, start) to (right, end) in pixels of half the image's size, and its width in pixels."""

    left: int
    start: float
    right: int
    end: float
    width: float


class Parts(NamedTuple):
    """Ink in connected parts.

    Attributes:
        ink: amount of ink (height, width), 0 to 255; 0 where there is no part.
        labels: (height, width), the number of the part that a pixel belongs to; 0 for none and for specks.
        boxes: (N, 4), left, top, right and bottom of each part, in the order of `numbers`.
        numbers: (N,) of the parts.
        cut: whether the parts reach the edge of the paper, because there are no others.
    """

    ink: Plane
    labels: NDArray[np.int32]
    boxes: NDArray[np.int32]
    numbers: NDArray[np.int64]
    cut: bool


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
        if (ink > VISIBLE).mean() < 0.5:  # otherwise the border is a table, and most of the image is a sheet of paper
            return _parts(_without_lines(ink, np.ones_like(ink)), None)
    ink, paper = _photographed_ink(levels)
    return _parts(_without_lines(ink, paper), paper)


def _parts(ink: Plane, paper: Plane | None) -> Parts:
    """Return the parts that are no specks and, in a photograph, do not reach the paper's edge, if there are such."""
    side = max(ink.shape)
    mask = (ink > VISIBLE).astype(np.uint8)
    strong = (ink > STRONG).astype(np.uint8)
    if paper is not None:  # what is left of pale lines is far from strong ink
        mask &= cv2.dilate(strong, _square(2 * int(LINE * side) + 1))
    count, labels, stats = _connected(mask)
    step = 2 if side > SMALL else 1  # a sample is faster
    amounts = np.bincount(labels[::step, ::step][strong[::step, ::step] > 0], minlength=count)
    amounts[0] = 0
    cut = False
    if paper is not None:
        amounts[np.maximum(stats[:, 2], stats[:, 3]) < GRAIN * side] = 0
        inner = cv2.erode(paper, _square(3), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        inside = amounts.copy()
        inside[labels.ravel()[np.flatnonzero(paper > inner)]] = 0
        cut = not inside.any()
        amounts = amounts if cut else inside
    numbers = np.flatnonzero(amounts > SPECK * amounts.max())
    if len(numbers) == 0:
        raise NoInkError(NO_INK)
    left, top, width, height, _ = stats[numbers].T
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    return Parts(ink * cv2.dilate(mask, _square(5)), labels, boxes, numbers, cut)


def _photographed_ink(levels: NDArray[np.uint8]) -> tuple[Plane, Plane]:
    height, width = levels.shape[:2]
    side = max(height, width)
    small = levels
    if side > SMALL:
        size = max(width * SMALL // side, 1), max(height * SMALL // side, 1)
        small = cv2.resize(levels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    paper = _paper(small)
    weights = _contrast(small, paper)
    grey = cv2.transform(levels, np.append(weights, 255 * -weights[weights < 0].sum())[None])
    grey = cv2.GaussianBlur(grey, (5, 5), 0) if side > SMALL else grey.reshape(height, width)
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_NEAREST)
    background = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, _square(int(side * STROKE)))
    ink = 255 - cv2.divide(grey, cv2.max(background, 1), scale=255)
    # the paper has the least ink, and half of a crop may be ink
    lowest, low, most = np.quantile(ink[paper > 0][::7], (0.05, 0.3, 0.995))
    noise = (low - lowest) / 1.17 + 0.5
    middle = low + 0.4 * noise
    if most - middle < max(FAINT, NOISE * noise):
        raise NoInkError(NO_INK)
    floor = middle + 3 * noise
    table = (255 * (np.arange(256) - floor) / (most - floor)).clip(0, 255).astype(np.uint8)
    return cv2.LUT(ink, table) * paper, paper


def _paper(small: NDArray[np.uint8]) -> Plane:
    """Return 1 where the paper is, 0 on a darker table around it. Without a table, all is paper."""
    _, mask = cv2.threshold(
        cv2.medianBlur(functools.reduce(cv2.max, cv2.split(small)), 3), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    sheet = max(contours, key=cv2.contourArea, default=None)
    everything = np.ones_like(mask)
    if sheet is None:
        return everything
    hull = cv2.convexHull(sheet)
    paper = cv2.fillConvexPoly(np.zeros_like(mask), hull, 1)
    area = cv2.contourArea(hull)
    # a sheet is convex and large, and the light part of a shadowed image reaches more of the border
    if area < 0.3 * mask.size or cv2.contourArea(sheet) < 0.9 * area or border(paper).mean() > 0.3:
        return everything
    return cv2.erode(paper, _square(5), borderType=cv2.BORDER_REPLICATE)  # without the shadow of its edge


def _contrast(small: NDArray[np.uint8], paper: Plane) -> NDArray[np.float64]:
    """Return weights of the channels: how much the ink stands out in each, negative for light ink on dark paper."""
    channels = small.shape[2]
    if not paper.all():
        small = np.where(paper[..., None], small, np.median(small[paper > 0], axis=0).astype(np.uint8))
    kernel = _square(int(max(small.shape) * STROKE))
    closed = cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel).reshape(small.shape)
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, kernel).reshape(small.shape)
    # without its ink, paper is smooth
    rough = [cv2.mean(cv2.morphologyEx(part, cv2.MORPH_GRADIENT, _square(3)))[:channels] for part in (closed, opened)]
    dark = np.array(rough[0]) <= DARK * np.array(rough[1])
    stands_out = np.where(dark, closed - small, small - opened).reshape(-1, channels)
    weights = (np.quantile(stands_out[::3], 0.98, axis=0) + 1) * np.where(dark, 1, -1)
    return np.asarray(weights / np.abs(weights).sum())


def _without_lines(ink: Plane, paper: Plane) -> Plane:
    """Remove thin straight lines that end at the paper's edge or at another such line; mend strokes that cross them."""
    mask = (ink > VISIBLE).astype(np.uint8)
    side = max(mask.shape)
    small = np.ascontiguousarray(cv2.dilate(mask, np.ones((2, 2), np.uint8))[1::2, 1::2])
    thick = cv2.morphologyEx(small, cv2.MORPH_OPEN, _square(int(LINE * side / 2)))
    small, thick = cv2.dilate(small, _square(3)), cv2.dilate(thick, _square(3))
    edge = cv2.copyMakeBorder(
        1 - cv2.resize(paper, small.shape[::-1], interpolation=cv2.INTER_NEAREST), *[1] * 4, 0, value=1
    )
    edge = cv2.dilate(edge, _square(2 * NEAR + 1))[1:-1, 1:-1]
    across, down = _lines(small, thick, mask), _lines(small.T, thick.T, mask.T)
    across, down = _ending(across, down, edge)
    widths = [line.width for line in across + down if line.width <= LINE * side]
    if not widths:
        return ink
    width = int(max(widths)) + 3
    thin = mask & ~cv2.morphologyEx(mask, cv2.MORPH_OPEN, _square(width))
    lines = (_drawn(across, mask.shape, width + 4, 2) | _drawn(down, mask.T.shape, width + 4, 2).T) & thin
    closed = cv2.morphologyEx(ink * (1 - lines), cv2.MORPH_CLOSE, _disc(width + 3))
    mended = np.where(lines, cv2.min(ink, closed), ink)
    return mended if mended.max() > 2 * VISIBLE else ink  # a digit that is made of lines


def _lines(small: Plane, thick: Plane, mask: Plane) -> list[Segment]:
    """Return the thin straight lines from left to right, of any length from RUN on."""
    small, length = np.ascontiguousarray(small), int(RUN * max(mask.shape) / 2)
    runs = [cv2.morphologyEx(small, cv2.MORPH_OPEN, _slanted(length, tilt)) for tilt in TILTS]
    best = int(np.argmax([cv2.countNonZero(run) for run in runs]))
    found = np.bitwise_or.reduce(runs[max(best - 1, 0) : best + 2])  # an image's lines have about one direction
    _, labels, stats = _connected(found)
    lines = []
    for label, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
        rows, columns = slice(top, top + height), slice(left, left + width)
        part = ((labels[rows, columns] == label) & (thick[rows, columns] == 0)).astype(np.uint8)
        there = np.flatnonzero(part.any(axis=0))
        if len(there) < width / 2:
            continue
        middle = (part * np.arange(height)[:, None]).sum(axis=0)[there] / part.sum(axis=0)[there]
        slope, start = _fitted(there, middle)
        if abs(slope) > 0.25 or np.median(np.abs(middle - start - slope * there)) > 1:
            continue
        full = cv2.resize(part, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
        inked = mask[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
        widths = (inked & full[: inked.shape[0], : inked.shape[1]]).sum(axis=0)
        lines.append(
            Segment(left, top + start, left + width - 1, top + start + slope * (width - 1), float(np.median(widths)))
        )
    return lines


def _fitted(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Return slope and start of a line through most of the points."""
    points = np.stack([x, y], axis=1).astype(np.float32)
    dx, dy, x0, y0 = cv2.fitLine(points, cv2.DIST_HUBER, 0, 0.01, 0.01).ravel().tolist()
    slope = dy / dx if dx else 9.0
    return slope, y0 - slope * x0


def _ending(across: list[Segment], down: list[Segment], edge: Plane) -> tuple[list[Segment], list[Segment]]:
    """Return the lines both ends of which are at the paper's edge or at one of the others that are returned."""
    while True:
        stops = edge | _drawn(down, edge.T.shape, 2 * NEAR + 1).T, (edge | _drawn(across, edge.shape, 2 * NEAR + 1)).T
        kept = [line for line in across if _stops(line, stops[0])], [line for line in down if _stops(line, stops[1])]
        if len(kept[0]) == len(across) and len(kept[1]) == len(down):
            return kept
        across, down = kept


def _stops(line: Segment, stops: Plane) -> bool:
    last = len(stops) - 1
    return all(stops[min(max(round(y), 0), last), x] for x, y in ((line.left, line.start), (line.right, line.end)))


def _drawn(lines: list[Segment], shape: tuple[int, ...], width: int, scale: int = 1) -> Plane:
    drawn = np.zeros(shape, np.uint8)
    shift = (scale - 1) / 2  # the middle of a pixel of half the size
    for line in lines:
        ends = [(line.left, line.start), (line.right, line.end)]
        first, last = [(round(scale * x + shift), round(scale * y + shift)) for x, y in ends]
        cv2.line(drawn, first, last, 1, width)
    return drawn


def _connected(mask: Plane) -> tuple[int, Plane, Plane]:
    """Return the number of connected parts and 1, their labels, and left, top, width, height and area of each."""
    # the default algorithm takes three times as long to find the boxes
    count, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_GRANA)
    return count, labels, stats


def _slanted(length: int, tilt: float) -> Plane:
    """Return a kernel: a line of a length, rotated by an angle in degrees."""
    reach = max(length // 2, 1)
    rise = round(reach * np.tan(np.radians(tilt)))
    kernel = np.zeros((2 * abs(rise) + 1, 2 * reach + 1), np.uint8)
    return cv2.line(kernel, (0, abs(rise) - rise), (2 * reach, abs(rise) + rise), 1)


def _square(side: int) -> Plane:
    """Return a kernel; its side is odd, so that it has a middle."""
    return np.ones((side // 2 * 2 + 1,) * 2, np.uint8)


def _disc(side: int) -> Plane:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side // 2 * 2 + 1,) * 2)
