"""The digits in an image, in reading order, each in MNIST's form.

Connected parts of ink are grouped to digits, and digits to rows. OpenCV finds the parts; without it, all that stands
out is one digit.
"""

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_amp.images.mnist_form import SIDE, is_even, is_simple, mnist_form, opaque, placed, reduced

if TYPE_CHECKING:
    from mnist_amp.images.ink import Parts

# in heights of a digit
BROKEN = 0.08  # the widest gap between two parts of a digit beside each other
ABOVE = 0.4  # the widest gap between two parts of a digit, one above the other, and between digits of a row
MARK_HEIGHT = 0.45  # the largest height of dots, dashes and the bar of a 5
TALL = 0.6  # the least height of a digit among others; the halves of a broken one are lower
SLASH = 0.98  # the least height of a slash
STRAIGHT = 0.01  # the largest standard deviation of a slash from a straight line; most handwritten 1s have more
DOT = 0.3  # the largest height of a dot above or below a stroke
WIDE = 1.75  # the width from which on a digit may be several; narrower ones that touch are unlike MNIST's digits

DATE = re.compile("00?(/00?){1,2}|00?/00?/0000|0000/00?/00?")  # where slashes stand between digits, each a 0
NO_OPENCV = "`pip install 'mnist-amp[images]'` reads lined paper, shadows and several digits"

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Digit:
    """A digit found in an image.

    Attributes:
        pixels: (28, 28), in MNIST's form, light ink on a dark background.
        box: left, top, right and bottom in the image, in pixels.
        notes: what may be wrong with it, in words that follow the file's name and a colon; usually empty.
        row: of the digits in the image, from 1.
        is_photograph: whether the image is larger than MNIST's and its edge has several colours, as by noise or uneven
            light; scans and drawings have one, unless they are cut at the ink.
    """

    pixels: NDArray[np.uint8]
    box: Box
    notes: tuple[str, ...]
    row: int = 1
    is_photograph: bool = False


class Group(NamedTuple):
    """Parts that belong to one digit, by their indices, and the box around them."""

    box: Box
    parts: list[int]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]


def find_digits(image: Image.Image) -> list[Digit]:
    """Return the digits of an image, row by row and from left to right, without the dots, dashes and slashes of dates.

    Args:
        image: in the mode L, RGB or RGBA, of any size. One of at most 28 x 28 pixels holds one digit.

    Raises:
        NoInkError: nothing stands out from the background.

    Examples:
        >>> [digit.box for digit in find_digits(Image.open("two.jpg"))]
        [(61, 120, 148, 301), (171, 118, 290, 305)]
    """
    if max(image.size) <= SIDE:
        return [Digit(mnist_form(image), (0, 0, *image.size), ())]
    if (missing := missing_opencv()) is not None:
        notes = () if is_simple(image) else (f"{missing}; {NO_OPENCV}",)
        is_photograph = not is_even(opaque(reduced(image)))
        return [Digit(mnist_form(image), (0, 0, *image.size), notes, is_photograph=is_photograph)]
    from mnist_amp.images.ink import find_parts

    levels = opaque(reduced(image))
    parts = find_parts(levels)
    factor = image.width / levels.shape[1]
    return [
        replace(_digit(group, parts, factor, notes), row=number)
        for number, row in enumerate(_rows(_groups(parts.boxes)), 1)
        for group, notes in _without_separators(row, parts)
    ]


@functools.cache
def missing_opencv() -> str | None:
    """Return why OpenCV can't be used; None if it can. It is imported, because a library that it needs may be missing.

    Examples:
        >>> missing_opencv()
        "OpenCV can't be imported (libGL.so.1: cannot open shared object file: No such file or directory)"
    """
    try:
        import cv2  # noqa: F401
    except ModuleNotFoundError:
        return "OpenCV is not installed"
    except Exception as error:  # of many kinds, by build
        return f"OpenCV can't be imported ({' '.join(str(error).split())})"
    return None


def _digit(group: Group, parts: "Parts", factor: float, notes: tuple[str, ...]) -> Digit:
    left, top, right, bottom = group.box
    # a digit that reaches from edge to edge is cut out, but not cut
    inside = right - left < 0.9 * parts.ink.shape[1] and group.height < 0.9 * parts.ink.shape[0]
    notes += ("the ink reaches the edge of the paper",) * (parts.cut and inside)
    notes += ("has a dot or an inner mark, which digits do not have",) * _has_mark(parts.boxes[group.parts], group)
    notes += ("may be several digits that touch",) * (right - left > WIDE * group.height)
    ink = parts.ink[top:bottom, left:right] * _mask(group, parts, faint=True) / np.float32(255)
    box = tuple(round(factor * side) for side in group.box)
    return Digit(placed(ink), box, notes, is_photograph=parts.is_photograph)  # type: ignore[arg-type]


def _has_mark(boxes: NDArray[np.int32], group: Group) -> bool:
    """Whether a part of a digit is a dot above or below all others, such as that of `?`, or is within another part."""
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        others = np.delete(boxes, index, axis=0)
        if ((others[:, :2] < (left, top)) & (others[:, 2:] > (right, bottom))).all(axis=1).any():
            return True
        height = bottom - top
        is_dot = height < DOT * group.height and right - left < 2 * height  # the bar of a 5 is wider
        if is_dot and len(others) and (top >= others[:, 3].max() or bottom <= others[:, 1].min()):
            return True
    return False


def _mask(group: Group, parts: "Parts", *, faint: bool = False) -> NDArray[np.bool_]:
    """Return the pixels of a group in its box, with or without the faint ink around it."""
    belongs = np.zeros(parts.labels.max() + 1, dtype=bool)
    belongs[parts.numbers[group.parts]] = True
    belongs[0] = faint
    left, top, right, bottom = group.box
    return np.asarray(belongs[parts.labels[top:bottom, left:right]])


def _groups(boxes: NDArray[np.int32]) -> list[Group]:
    """Join parts that belong to one digit, until no two groups do."""
    groups = [Group(tuple(box), [index]) for index, box in enumerate(boxes.tolist())]
    while True:
        pairs = np.argwhere(np.triu(_belong(np.array([group.box for group in groups])), 1)).tolist()
        if not pairs:
            return groups
        grown: set[int] = set()
        gone: set[int] = set()
        for first, second in pairs:
            if (grown | gone).isdisjoint((first, second)):
                groups[first] = _united(groups[first], groups[second])
                grown.add(first)
                gone.add(second)
        groups = [group for index, group in enumerate(groups) if index not in gone]


def _united(first: Group, second: Group) -> Group:
    pair = np.array([first.box, second.box])
    box = (*pair[:, :2].min(axis=0).tolist(), *pair[:, 2:].max(axis=0).tolist())
    return Group(box, first.parts + second.parts)


def _belong(boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether two of N boxes are of one digit, (N, N)."""
    left, top, right, bottom = boxes.T[:, :, None]
    width, height = right - left, bottom - top
    digit = _typical(height[:, 0])
    overlap = np.minimum(right, right.T) - np.maximum(left, left.T)
    gap = np.maximum(top, top.T) - np.minimum(bottom, bottom.T)
    united = np.maximum(right, right.T) - np.minimum(left, left.T)
    tall = height > TALL * digit
    # if there are more of their height, they are no halves of a digit, but digits of two rows
    two_rows = tall & tall.T & (gap > -0.2 * digit) & (tall.sum() > 2)
    above = overlap > 0.4 * np.minimum(width, width.T)
    broken = (overlap > -BROKEN * digit) & (united < digit)
    # [i, j]: j is the bar of a 5 i; a dash between digits is lower
    middle = (top + bottom) / 2
    high = top + 0.35 * height > middle.T
    small = height < MARK_HEIGHT * digit
    bar = high & small.T & ~small & (overlap > -2 * BROKEN * digit)
    return np.asarray((gap < ABOVE * digit) & ~two_rows & (above | broken | bar | bar.T))


def _typical(heights: Any) -> float:
    """Return the median of the larger half of heights: that of a digit, even if there are several dots and dashes."""
    return float(np.median(np.sort(heights)[len(heights) // 2 :]))


def _rows(groups: list[Group]) -> list[list[Group]]:
    """Sort groups into rows from top to bottom, each from left to right."""
    slack = 0.2 * _typical([group.height for group in groups])
    rows: list[list[Group]] = []
    for group in sorted(groups, key=lambda group: group.box[1] + group.box[3]):
        middle = (group.box[1] + group.box[3]) / 2
        if rows and rows[-1][-1].box[1] - slack < middle < rows[-1][-1].box[3] + slack:
            rows[-1].append(group)
        else:
            rows.append([group])
    return [sorted(row, key=lambda group: group.box[0]) for row in rows]


def _without_separators(row: list[Group], parts: "Parts") -> list[tuple[Group, tuple[str, ...]]]:
    """Return the digits of a row with notes, without dots, dashes and slashes."""
    smallest = MARK_HEIGHT * _typical([group.height for group in row])
    tall = [group for group in row if group.height > smallest]
    signs = _signs(tall, parts)
    is_date = DATE.fullmatch(signs) is not None
    notes = ("a stroke between digits was read as a slash",) * is_date
    notes += ("a small mark was left out",) * (row[0] is not tall[0] or row[-1] is not tall[-1])
    return [
        (group, notes + ("may be a slash",) * (sign == "/"))
        for group, sign in zip(tall, signs, strict=True)
        if sign == "0" or not is_date
    ]


def _signs(row: list[Group], parts: "Parts") -> str:
    """Return `/` for each group of a row that has the form of a slash and is between others, and `0` for the others."""
    least = max(SLASH * float(np.median([group.height for group in row])), 2)
    inner = ("/" if group.height > least and _is_slash(group, parts) else "0" for group in row[1:-1])
    return "".join(["0", *inner, "0"])[: len(row)]


def _is_slash(group: Group, parts: "Parts") -> bool:
    """Whether a group is a thin straight line that leans to the right."""
    mask = _mask(group, parts)
    y = np.flatnonzero(mask.any(axis=1))
    widths = mask[y].sum(axis=1)
    middle = mask[y] @ np.arange(mask.shape[1]) / widths
    slope, start = np.polyfit(y, middle, 1)
    straight = np.std(middle - start - slope * y) < STRAIGHT * group.height
    return bool(straight and -0.7 < slope < -0.2 and widths.mean() < 0.2 * group.height)
