"""Remove ruled lines, squares and the boxes of forms from ink, with OpenCV."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]  # (H, W) uint8: ink from 0 to 255, or a mask of 0 and 1

STROKE_INK = 51  # of 255: the least ink of a stroke, as in all of MNIST's images
LINE = 0.02  # of the longer side: the widest printed line; pens of 1 % and less are as thin
RUN = 0.1  # of the longer side: the shortest line of a form's box
TILTS = range(-12, 13, 4)  # degrees of a line's rotation; each finds lines of +-3 degrees
STEEP = 0.25  # the slope of lines that are rotated by 14 degrees
PARALLEL = 0.07  # the largest difference of slopes of an image's lines of one direction
JOIN = 4  # pixels of half the image's size: how far the lines of a box may be apart where they meet


class Segment(NamedTuple):
    """A straight line from (left, start) to (right, end), in pixels of half the image's size.

    `start` and `end` are rows; of a vertical line, columns, because it is found in the transposed image. `width` is
    that of its ink, in pixels of the image. `band` is wider: two lines close to each other are found as one.
    """

    left: int
    start: float
    right: int
    end: float
    width: float
    band: float

    @property
    def slope(self) -> float:
        return (self.end - self.start) / max(self.right - self.left, 1)


def without_lines(ink: Plane, paper: Plane) -> Plane:
    """Remove thin straight lines that end at the paper's edge or at another such line; mend strokes that cross them.

    Args:
        ink: (height, width), 0 to 255.
        paper: (height, width), 1 where the paper is.

    Examples:
        >>> digit_alone = without_lines(digit_in_a_box, np.ones_like(digit_in_a_box))
    """
    mask = (ink > STROKE_INK).astype(np.uint8)
    side = max(mask.shape)
    if min(mask.shape) < 2:
        return ink
    small = np.ascontiguousarray(cv2.dilate(mask, np.ones((2, 2), np.uint8))[1::2, 1::2])
    thick = cv2.morphologyEx(small, cv2.MORPH_OPEN, square(int(LINE * side / 2)))
    small, thick = cv2.dilate(small, square(3)), cv2.dilate(thick, square(3))
    across, down = _lines(small, thick, mask), _lines(small.T, thick.T, mask.T)
    if not (across or down):
        return ink
    table = 1 - cv2.resize(paper, small.shape[::-1], interpolation=cv2.INTER_NEAREST)
    edge = cv2.copyMakeBorder(table, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    edge = cv2.dilate(edge, square(2 * JOIN + 1))[1:-1, 1:-1]
    across, down = _ending(across, down, edge)
    widths = [line.width for line in across + down if line.width <= LINE * side]
    if not widths:
        return ink
    width = int(max(widths)) + 3
    thin = mask & ~cv2.morphologyEx(mask, cv2.MORPH_OPEN, square(width))
    lines = (_drawn(across, mask.shape, None, 2) | _drawn(down, mask.T.shape, None, 2).T) & thin
    closed = cv2.morphologyEx(ink * (1 - lines), cv2.MORPH_CLOSE, _disc(width + 3))
    mended = np.where(lines, cv2.min(ink, closed), ink)
    return mended if mended.max() > 2 * STROKE_INK else ink  # a digit that is made of lines


def _lines(small: Plane, thick: Plane, mask: Plane) -> list[Segment]:
    """Return the thin straight lines from left to right, of any length from RUN on."""
    small, length = np.ascontiguousarray(small), int(RUN * max(mask.shape) / 2)
    area = _inked_area(small, length)
    runs = [cv2.morphologyEx(small[area], cv2.MORPH_OPEN, _slanted(length, tilt)) for tilt in TILTS]
    sizes = [cv2.countNonZero(run) for run in runs]
    best = int(np.argmax(sizes))
    if sizes[best] == 0:
        return []
    found = np.zeros_like(small)
    found[area] = np.bitwise_or.reduce(runs[max(best - 1, 0) : best + 2])  # an image's lines have about one direction
    labels, stats = connected(found)
    lines = []
    for label, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
        area = slice(top, top + height), slice(left, left + width)
        part = ((labels[area] == label) & (thick[area] == 0)).astype(np.uint8)
        inked = mask[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
        straight = _straight(part, inked) or _pieces(part, inked, length)
        ends = {"left": left, "right": left + width - 1}
        lines += [line._replace(**ends, start=top + line.start, end=top + line.end) for line in straight]
    return _parallel(lines)


def _parallel(lines: list[Segment]) -> list[Segment]:
    """Return the lines that have about the same direction as most: the others are straight strokes of digits."""
    slopes = np.array([line.slope for line in lines])
    usual = np.median(np.repeat(slopes, [line.right - line.left for line in lines])) if lines else 0
    return [line for line in lines if abs(line.slope - usual) < PARALLEL]


def _straight(part: Plane, mask: Plane, *, touched: bool = False) -> list[Segment]:
    """Return the line through a part, from its left to its right end, if the part is straight and thin.

    If strokes may have touched the line, it is enough that one of its edges is straight: on the other side.
    """
    height, width = part.shape
    columns = np.flatnonzero(part.any(axis=0))
    if len(columns) < width / 2:
        return []
    counts = part.sum(axis=0)[columns]
    thickness = float(np.sort(counts)[len(counts) // 4])
    fit = _fitted(columns, (part * np.arange(height)[:, None]).sum(axis=0)[columns] / counts)
    if 0.3 < fit.deviation <= 1 or touched:
        upper = part.argmax(axis=0)[columns] + (thickness - 1) / 2
        lower = height - 1 - part[::-1].argmax(axis=0)[columns] - (thickness - 1) / 2
        fit = min(fit, _fitted(columns, upper), _fitted(columns, lower))
    if fit.deviation > 1 or abs(fit.slope) >= STEEP:
        return []
    end = fit.start + fit.slope * (width - 1)
    return [Segment(0, fit.start, width - 1, end, _ink_width(part, mask), 2 * thickness + 3)]  # and its soft edges


class Fit(NamedTuple):
    """A line through points, and their median deviation from it."""

    deviation: float
    start: float
    slope: float


def _fitted(columns: NDArray[np.int64], rows: NDArray[np.float64]) -> Fit:
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    dx, dy, x, y = cv2.fitLine(points, cv2.DIST_HUBER, 0, 0.01, 0.01).ravel().tolist()
    slope = dy / dx if dx else STEEP
    start = y - slope * x
    return Fit(float(np.median(np.abs(rows - start - slope * columns))), start, slope)


def _ink_width(part: Plane, mask: Plane) -> float:
    """Return the width of the ink in a part, without the gap between two lines."""
    height, width = part.shape
    full = cv2.resize(part, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    inked = cv2.copyMakeBorder(mask & full[: mask.shape[0], : mask.shape[1]], 1, 0, 0, 0, cv2.BORDER_CONSTANT, value=0)
    lines = (inked[1:] > inked[:-1]).sum(axis=0)
    return float(np.median(inked.sum(axis=0) / lines.clip(1)))


def _pieces(part: Plane, mask: Plane, length: int) -> list[Segment]:
    """Return the lines through the long pieces of a part; a thick stroke that crosses two ruled lines joins them."""
    labels, stats = connected(part)
    lines = []
    for label, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
        if width < length:
            continue
        piece = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
        inked = mask[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
        for line in _straight(piece, inked, touched=True):
            start, right = top + line.start - line.slope * left, part.shape[1] - 1
            lines.append(line._replace(start=start, right=right, end=start + line.slope * right))
    return lines


def _ending(across: list[Segment], down: list[Segment], edge: Plane) -> tuple[list[Segment], list[Segment]]:
    """Return the lines both ends of which are at the paper's edge or at one of the others that are returned."""
    while True:
        stops = edge | _drawn(down, edge.T.shape, 2 * JOIN + 1).T, (edge | _drawn(across, edge.shape, 2 * JOIN + 1)).T
        kept = [line for line in across if _stops(line, stops[0])], [line for line in down if _stops(line, stops[1])]
        if len(kept[0]) == len(across) and len(kept[1]) == len(down):
            return kept
        across, down = kept


def _stops(line: Segment, stops: Plane) -> bool:
    last = len(stops) - 1
    return all(stops[min(max(round(y), 0), last), x] for x, y in ((line.left, line.start), (line.right, line.end)))


def _drawn(lines: list[Segment], shape: tuple[int, ...], width: int | None, scale: int = 1) -> Plane:
    """Return the pixels of lines of a width, or of the width of their bands."""
    drawn = np.zeros(shape, np.uint8)
    shift = (scale - 1) / 2  # the middle of a pixel of half the size
    for line in lines:
        ends = [(line.left, line.start), (line.right, line.end)]
        first, last = [(round(scale * x + shift), round(scale * y + shift)) for x, y in ends]
        cv2.line(drawn, first, last, 1, width or round(line.band))
    return drawn


def _slanted(length: int, tilt: float) -> Plane:
    """Return a kernel: a line of a length, rotated by an angle in degrees."""
    reach = max(length // 2, 1)
    rise = round(reach * np.tan(np.radians(tilt)))
    kernel = np.zeros((2 * abs(rise) + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.line(kernel, (0, abs(rise) - rise), (2 * reach, abs(rise) + rise), 1))


def _disc(side: int) -> Plane:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side // 2 * 2 + 1,) * 2))


def connected(mask: Plane) -> tuple[Plane, Plane]:
    """Return labels of the connected parts, and left, top, width, height and area of each, from 0: none."""
    labels, stats = np.zeros(mask.shape, np.int32), np.zeros((1, 5), np.int32)
    rows, columns = area = _inked_area(mask, 0)
    if mask[area].size:
        # the default algorithm takes three times as long to find the boxes
        found = cv2.connectedComponentsWithStatsWithAlgorithm(mask[area], 8, cv2.CV_32S, cv2.CCL_GRANA)
        labels[area], stats = found[1], np.asarray(found[2])
        stats[1:, :2] += (columns.start, rows.start)
    return labels, stats


def _inked_area(mask: Plane, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns that have ink, with a margin: looking at these alone is faster."""
    left, top, width, height = cv2.boundingRect(mask)
    rows = slice(max(top - margin, 0) & ~1, top + height + margin)  # even, because GRANA takes blocks of 2 x 2
    return rows, slice(max(left - margin, 0) & ~1, left + width + margin)


def square(side: int) -> Plane:
    """Return a kernel; its side is odd, so that it has a middle."""
    return np.ones((side // 2 * 2 + 1,) * 2, np.uint8)
