"""The ink of a drawn photograph: test digits of MNIST, rows of them, letters, scribbles and symbols.

Each function returns an amount of ink, (H, W) float32 from 0 to 1, cropped to the mark.
"""

import functools
import math
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_amp.data import mnist
from photograph_scenes import Draw, Plane, smooth_noise

Points = NDArray[np.float64]  # (N, 2): x to the right and y down

FONTS = {
    "latin": (
        *("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic"),
        *("DejaVuSansMono", "STIXGeneral", "STIXGeneralItalic", "cmr10", "cmss10", "cmmi10"),
    ),
    "other": ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono"),
    "symbols": ("DejaVuSans", "DejaVuSans-Bold"),
}
# Letters that look like a digit are left out. Latin: O o (0), I i l (1), Z z (2), S s (5), B (8), b (6), g q (9).
LATIN = "ACDEFGHJKLMNPQRTUVWXYacdefhjkmnprtuvwxy"
# Greek: omicron, theta (0), iota (1), zeta (2), final sigma (5), sigma, delta (6), beta (8). Cyrillic: O (0),
# dotted I (1), ze, E (3), che (4), be (6), ve (8).
GREEK = "ΑΓΔΕΗΚΛΜΝΞΠΡΣΤΥΦΧΨΩαγεηκλμνξπρτυφχψω"
CYRILLIC = "АГДЖИКЛМНПРТУФХЦШЩЫЮЯагджиклмнпртуфхцшщыюя"
SYMBOLS = "+=?!%&@#←↑→↓↗↘↔⇒♥♡★☆☺☹✓✔✗✘♪♫♬☀☂☎✂✈€¥∞∑√π≠≈♠♣♦✿❄*~{}"

# The strokes of handwritten letters: points as two digits, x and y from 0 to 9; corners are rounded.
LETTERS = {
    **{
        "A": "19 50 50 89|26 76",
        "C": "82 60 31 14 16 39 69 88",
        "E": "80 20 20 29 29 89|24 74",
        "F": "80 20 20 29|24 74",
    },
    **{"G": "82 60 31 14 16 39 69 87 85 85 55", "H": "20 29|80 89|25 85", "K": "20 29|80 25 25 89", "L": "20 29 29 89"},
    **{"M": "19 20 20 55 55 80 80 99", "N": "19 20 20 89 89 80", "P": "29 20 20 60 93 64 25", "U": "20 26 39 69 86 80"},
    **{"R": "29 20 20 60 93 64 25 25 89", "T": "10 90|50 59", "V": "10 59 59 90", "W": "10 39 39 52 52 69 69 90"},
    **{"X": "10 89|80 19", "Y": "10 55|90 55 49", "a": "84 53 25 28 59 85|83 88 99", "e": "26 86 83 43 25 29 59 88"},
    **{"f": "91 60 41 49|24 74", "h": "20 29|26 54 75 79", "k": "20 29|84 27 27 79", "w": "13 39 39 55 55 69 69 93"},
    **{"m": "13 19|16 34 45 49|46 64 75 79", "n": "23 29|26 54 75 79", "r": "23 29|26 44 74", "t": "40 47 59 88|23 83"},
    **{"u": "23 28 59 77|73 79", "x": "13 79|73 19", "y": "13 56|93 29"},
}
# the strokes of separators in a date, and the height of their top above the baseline; in heights of a digit
SEPARATORS = {
    "-": ([(0, 0.03), (0.35, 0)], 0.5),
    "/": ([(0, 1.1), (0.45, 0)], 1.1),
    ".": ([(0, 0), (0.01, 0.01)], 0.1),
}


@functools.cache
def test_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return MNIST's test images (N, 28, 28) and their labels (N,), without those with a part of the next digit."""
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder))
        images, labels = mnist.load(Path(folder), train=False)
    alone = np.array([not _has_neighbour(image) for image in images.numpy()])
    return images.numpy()[alone], labels.numpy()[alone]


def _has_neighbour(image: NDArray[np.uint8]) -> bool:
    """Return whether a small part stands at the left or right: of the next digit on the form that was scanned."""
    boxes = cv2.connectedComponentsWithStats((image > 40).astype(np.uint8))[2][1:]
    left, _, width, _, area = boxes[boxes[:, cv2.CC_STAT_AREA].argmax()]
    beside = (boxes[:, 0] >= left + width) | (boxes[:, 0] + boxes[:, 2] <= left)
    return bool((beside & (boxes[:, cv2.CC_STAT_AREA] < 0.2 * area)).any())


def cropped(ink: Plane) -> Plane:
    rows, columns = (np.flatnonzero((ink > 0.2).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def digit(draw: Draw, size: float) -> tuple[Plane, str]:
    """Return a test digit and its label. Its longer side has `size` pixels; its edges are smooth, as a pen's."""
    images, labels = test_digits()
    index = int(draw.integers(len(images)))
    side = round(size * 28 / 20)
    large = np.asarray(Image.fromarray(images[index]).resize((side, side), Image.Resampling.BICUBIC)) / 255
    smooth = cv2.GaussianBlur(large, (0, 0), side / 28 * 0.45)
    ink = ((smooth - draw.uniform(0.25, 0.4)) * draw.uniform(2, 4) + 0.5).clip(0, 1)
    return cropped(np.asarray(ink, dtype=np.float32)), str(labels[index])


def glyph(draw: Draw, text: str, fonts: str, size: int) -> Plane:
    """Return a character in a font of matplotlib, in two of three images bent as handwriting is."""
    faces = FONTS[fonts]
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    font = ImageFont.truetype(folder / f"{faces[draw.integers(len(faces))]}.ttf", round(1.2 * size))
    image = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(image).text((1.5 * size, 1.5 * size), text, 255, font, anchor="mm")
    ink = np.asarray(np.asarray(image) / 255, dtype=np.float32)
    return cropped(bent(draw, ink, size) if draw.random() < 0.67 else ink)


def bent(draw: Draw, ink: Plane, size: float) -> Plane:
    """Displace ink smoothly, so that straight lines are no longer straight."""
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]].astype(np.float32)
    amount, reach = draw.uniform(0.02, 0.05) * size, draw.uniform(0.12, 0.25) * size
    rows, columns = (axis + amount * smooth_noise(draw, ink.shape, reach) for axis in (y, x))
    return np.asarray(cv2.remap(ink, columns, rows, cv2.INTER_LINEAR), dtype=np.float32)


def rounded(points: Points) -> Points:
    """Round the corners of a line: Chaikin's algorithm, three times. A point that is given twice stays a corner."""
    for _ in range(3):
        first, second = points[:-1], points[1:]
        between = np.stack([0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], between, points[-1:]])
    return points


def penned(strokes: Sequence[Points], size: int, width: float) -> Plane:
    """Draw strokes, given in a unit square, with a round pen of a width in pixels."""
    pad = math.ceil(width) + size // 4
    ink = np.zeros((size + 2 * pad, size + 2 * pad), np.uint8)
    for points in strokes:
        fixed = np.round((points * size + pad) * 16).astype(np.int32)  # with 4 bits of fraction
        cv2.polylines(ink, [fixed], False, 255, max(round(width), 1), cv2.LINE_AA, 4)
    return cropped(np.asarray(ink / 255, dtype=np.float32))


def letter(draw: Draw, size: int) -> Plane:
    """Return a letter: handwritten, or Latin, Greek or Cyrillic in a font."""
    kind = draw.random()
    if kind < 0.4:
        return handwritten_letter(draw, list(LETTERS)[draw.integers(len(LETTERS))], size)
    alphabet, fonts = (LATIN, "latin") if kind < 0.7 else (GREEK, "other") if kind < 0.85 else (CYRILLIC, "other")
    return glyph(draw, alphabet[draw.integers(len(alphabet))], fonts, size)


def handwritten_letter(draw: Draw, name: str, size: int) -> Plane:
    slant = draw.uniform(-0.1, 0.3)
    strokes = []
    for text in LETTERS[name].split("|"):
        points = np.array([(int(point[0]), int(point[1])) for point in text.split()]) / 9
        points += draw.normal(0, 0.025, points.shape)
        points[:, 0] += slant * (0.5 - points[:, 1])
        strokes.append(rounded(points))
    return penned(strokes, size, draw.uniform(0.04, 0.12) * size)


def scribble(draw: Draw, size: int) -> Plane:
    """Return a scribble that no one reads as a digit: of many turns, strokes or crossings."""
    kinds = (tangle, zigzag, crossed_out, spiral, hatching)
    return penned(kinds[draw.integers(len(kinds))](draw), size, draw.uniform(0.02, 0.06) * size)


def tangle(draw: Draw) -> list[Points]:
    return [rounded(draw.uniform(0, 1, (int(draw.integers(12, 20)), 2)))]


def zigzag(draw: Draw) -> list[Points]:
    turns = int(draw.integers(7, 13))
    x = np.linspace(0, 1, turns) + draw.normal(0, 0.03, turns)
    y = 0.5 + np.where(np.arange(turns) % 2, 1, -1) * draw.uniform(0.12, 0.4, turns)
    points = np.stack([x, y], axis=1)
    return [rounded(points if draw.random() < 0.7 else points[:, ::-1])]


def crossed_out(draw: Draw) -> list[Points]:
    """Return a wavy line as of a word, and two or three strokes through it."""
    x = np.linspace(0, 1, 18)
    wave = np.stack([x, 0.5 + draw.normal(0, 0.12, 18)], axis=1)
    return [rounded(wave), *(line(draw, *draw.uniform(0.2, 0.8, 2)) for _ in range(draw.integers(2, 4)))]


def line(draw: Draw, start: float, end: float) -> Points:
    """Return a nearly straight stroke from left to right, which starts and ends at two heights."""
    points = np.stack([np.linspace(0, 1, 4), np.linspace(start, end, 4)], axis=1)
    return rounded(points + draw.normal(0, 0.01, points.shape))


def spiral(draw: Draw) -> list[Points]:
    angle = np.linspace(0, 2 * math.pi * draw.uniform(2.5, 5), 120)
    radius = 0.48 * (angle / angle[-1]) ** draw.uniform(0.8, 1.2) * (1 + 0.03 * np.sin(3 * angle))
    start = draw.uniform(0, 2 * math.pi)
    return [0.5 + np.stack([radius * np.cos(angle + start), radius * np.sin(angle + start)], axis=1)]


def hatching(draw: Draw) -> list[Points]:
    """Return 6 to 12 parallel strokes, in half of the images with as many across."""
    count, lean = int(draw.integers(6, 13)), draw.uniform(-0.3, 0.3)
    lines = [line(draw, y - lean, y + lean) for y in np.linspace(0.1, 0.9, count)]
    return lines + [points[:, ::-1] for points in lines] if draw.random() < 0.5 else lines


def symbol(draw: Draw, size: int) -> Plane:
    return glyph(draw, SYMBOLS[draw.integers(len(SYMBOLS))], "symbols", size)


def joined(masks: Sequence[Plane], lefts: Sequence[int], tops: Sequence[int]) -> Plane:
    """Put marks at places, which may be negative, on one plane."""
    tops, lefts = [top - min(tops) for top in tops], [left - min(lefts) for left in lefts]
    height = max(top + len(mask) for top, mask in zip(tops, masks, strict=True))
    width = max(left + mask.shape[1] for left, mask in zip(lefts, masks, strict=True))
    ink = np.zeros((height, width), np.float32)
    for mask, left, top in zip(masks, lefts, tops, strict=True):
        part = ink[top : top + len(mask), left : left + mask.shape[1]]
        np.maximum(part, mask, out=part)
    return ink


def several(draw: Draw, count: int, height: float) -> tuple[list[Plane], list[int], str]:
    """Return digits of about a height, the top of each, and their labels; heights and baselines vary by up to 15 %."""
    found = [digit(draw, height * draw.uniform(0.85, 1.15)) for _ in range(count)]
    masks = [mask for mask, _ in found]
    tops = [round(height * draw.uniform(-0.075, 0.075)) - len(mask) for mask in masks]
    return masks, tops, "".join(label for _, label in found)


def row(draw: Draw, count: int, height: float, separators: str = "") -> tuple[Plane, str]:
    """Return a row of digits with gaps of 0.15 to 0.6 of the height, and its label.

    Args:
        draw: the random numbers.
        count: of digits.
        height: of a digit, in pixels.
        separators: `-`, `/` or `.` after each second digit, as in a date; they are not in the label.
    """
    masks, tops, label = several(draw, count, height)
    if separators:
        for index in range(count - 2, 0, -2):
            masks.insert(index, separator(draw, separators, height))
            tops.insert(index, -round(SEPARATORS[separators][1] * height))
    gaps = [round(height * draw.uniform(0.15, 0.6)) for _ in masks]
    widths = [mask.shape[1] + gap for mask, gap in zip(masks, gaps, strict=True)]
    return joined(masks, [0, *np.cumsum(widths[:-1]).tolist()], tops), label


def separator(draw: Draw, character: str, height: float) -> Plane:
    ends = np.array(SEPARATORS[character][0]) + draw.normal(0, 0.01, (2, 2))
    return penned([ends], round(height), height * draw.uniform(0.07, 0.12))


def touching_row(draw: Draw, count: int, height: float) -> tuple[Plane, str]:
    """Return a row of digits, each of which touches the next but does not hide in it, and its label."""
    while True:
        masks, tops, label = several(draw, count, height)
        pairs = zip(pairwise(masks), pairwise(tops), strict=True)
        shifts = [contact(first, second, below - above) for (first, second), (above, below) in pairs]
        if all(shift > 0.75 * mask.shape[1] for shift, mask in zip(shifts, masks, strict=False)):
            lefts = np.cumsum([0, *(shift - round(0.02 * height) for shift in shifts)])
            return joined(masks, lefts.tolist(), tops), label


def contact(first: Plane, second: Plane, lower: int) -> int:
    """Return where the second mark, lower by some pixels, must start to touch the first one: counted from its left."""
    reach = [
        first_row.nonzero()[0].max() - second_row.nonzero()[0].min()
        for first_row, second_row in zip(first[max(lower, 0) :] > 0.5, second[max(-lower, 0) :] > 0.5, strict=False)
        if first_row.any() and second_row.any()
    ]
    return int(max(reach, default=first.shape[1]))
