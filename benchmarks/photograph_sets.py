"""Drawn photographs of MNIST's test digits as people take them, and of things that are no digits.

Each photograph depends on nothing but its kind, a seed and an index. `photographs.py` measures what
`mnist-amp predict --images` makes of them.

    for image, label in make("squared paper", seed=1, count=200):
        ...
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import photograph_marks as marks
import photograph_scenes as scenes
from photograph_scenes import Draw, Plane, Sheet

QUALITY = 85  # of the JPEG files
Photograph = tuple[Image.Image, str]


def make(kind: str, seed: int, count: int) -> Iterator[Photograph]:
    """Yield drawn photographs of a kind and the label of each.

    Args:
        kind: one of KINDS.
        seed: 0 for the sets whose results are reported; another one to tune with.
        count: of photographs.

    Returns:
        images in the mode RGB or L, and labels: `7`; `2026` for several digits; empty if there is no digit.

    Examples:
        >>> [label for _, label in make("several digits", seed=1, count=3)]
    """
    for index in range(count):
        yield KINDS[kind](np.random.default_rng([zlib.crc32(kind.encode()), seed, index]))


def save(kind: str, seed: int, count: int, folder: Path) -> list[str]:
    """Write photographs of a kind as `0000.jpg`, `0001.jpg` and so on, and return the label of each."""
    folder.mkdir(parents=True)
    labels = []
    for index, (image, label) in enumerate(make(kind, seed, count)):
        image.save(folder / f"{index:04}.jpg", quality=QUALITY)
        labels.append(label)
    return labels


def shape_of(draw: Draw, *, wide: bool = False) -> tuple[int, int]:
    """Return the height and width of a photograph: 400 x 400 to 400 x 480 pixels."""
    short, long = 400, int(draw.integers(400, 481))
    return (short, long) if wide or draw.random() < 0.3 else (long, short)


def placed(draw: Draw, ink: Plane, shape: tuple[int, int], margin: int = 12) -> Plane:
    """Put a mark somewhere on an empty plane, with a margin around it."""
    free = np.array(shape) - ink.shape - 2 * margin
    top, left = draw.integers(0, np.maximum(free, 1)) + margin
    plane = np.zeros(shape, np.float32)
    plane[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return plane


def put(draw: Draw, plane: Plane, ink: Plane, box: scenes.Box) -> None:
    """Put a mark on a plane in a form's box, mostly near to its middle; it may touch a line."""
    left, top, right, bottom = box
    free = np.array([bottom - top, right - left]) - ink.shape
    row, column = (draw.beta(2, 2, 2) * free + (top, left)).round().astype(int)
    part = plane[row : row + ink.shape[0], column : column + ink.shape[1]]
    np.maximum(part, ink, out=part)


def digit_size(draw: Draw) -> float:
    return float(draw.uniform(90, 240))


def written(draw: Draw, sheet: Sheet, margin: int = 12) -> tuple[Sheet, str]:
    """Write a digit somewhere on a sheet."""
    ink, label = marks.digit(draw, digit_size(draw))
    return scenes.handwritten(draw, sheet, placed(draw, ink, sheet.shape[:2], margin)), label


def plain(draw: Draw) -> Photograph:
    sheet, label = written(draw, scenes.blank(draw, shape_of(draw)))
    return scenes.photograph(draw, sheet), label


def ruled(draw: Draw) -> Photograph:
    return on_lines(draw, squared=False)


def squared(draw: Draw) -> Photograph:
    return on_lines(draw, squared=True)


def on_lines(draw: Draw, *, squared: bool) -> Photograph:
    sheet, label = written(draw, scenes.lined(draw, scenes.blank(draw, shape_of(draw)), squared=squared))
    return scenes.photograph(draw, sheet), label


def soft_shadow(draw: Draw) -> Photograph:
    return shadowed(draw, draw.uniform(40, 160))


def sharp_shadow(draw: Draw) -> Photograph:
    return shadowed(draw, draw.uniform(2, 12))


def shadowed(draw: Draw, softness: float) -> Photograph:
    sheet, label = written(draw, scenes.blank(draw, shape_of(draw)))
    return scenes.photograph(draw, sheet, scenes.shadow(draw, sheet.shape[:2], softness)), label


def on_table(draw: Draw) -> Photograph:
    sheet, label = written(draw, scenes.blank(draw, shape_of(draw)), margin=60)  # the paper's corners may be cut off
    return scenes.photograph(draw, scenes.on_table(draw, sheet)), label


def box_line(draw: Draw) -> tuple[float, scenes.Colour, float]:
    """Return the width, the colour and the opacity of a form's printed line."""
    return draw.uniform(1, 4), scenes.PRINT[draw.integers(len(scenes.PRINT))], draw.uniform(0.6, 1)


def complete_box(draw: Draw) -> Photograph:
    """Photograph a digit in a form's box, all of which is seen."""
    shape = np.array(shape_of(draw))
    height = draw.uniform(180, 340)
    size = np.array([height, height * draw.uniform(0.75, 1.1)])
    ink, label = marks.digit(draw, size.min() * draw.uniform(0.55, 0.85))
    top, left = draw.uniform(12, shape - size - 12)
    plane = np.zeros(shape, np.float32)
    put(draw, plane, ink, (left, top, left + size[1], top + size[0]))
    sheet = scenes.blank(draw, plane.shape)
    sheet = scenes.framed(sheet, (left, top, left + size[1], top + size[0]), *box_line(draw))
    return scenes.photograph(draw, scenes.handwritten(draw, sheet, plane)), label


def cut_box(draw: Draw) -> Photograph:
    """Photograph a form's box that fills the image: most sides are cut on the line, others just inside or outside."""
    sheet = scenes.blank(draw, shape_of(draw))
    height, width = sheet.shape[:2]
    line = box_line(draw)
    cuts = [
        draw.uniform(-line[0] / 2, line[0] / 2) if side < 0.7 else draw.uniform(-6, 6) for side in draw.uniform(0, 1, 4)
    ]
    sheet = scenes.framed(sheet, (cuts[0], cuts[1], width - 1 - cuts[2], height - 1 - cuts[3]), *line)
    ink, label = marks.digit(draw, 400 * draw.uniform(0.5, 0.8))
    return scenes.photograph(draw, scenes.handwritten(draw, sheet, placed(draw, ink, (height, width)))), label


def pencil(draw: Draw) -> Photograph:
    """Photograph a digit in pencil on grey paper, with colour noise."""
    sheet = scenes.blank(draw, shape_of(draw), lightest=0.85, darkest=0.6)
    ink, label = marks.digit(draw, digit_size(draw))
    sheet = scenes.pencilled(draw, sheet, placed(draw, ink, sheet.shape[:2]))
    return scenes.photograph(draw, sheet, colour_noise=6), label


def tilted(draw: Draw) -> Photograph:
    shape = shape_of(draw)
    ink, label = marks.digit(draw, digit_size(draw))
    seen = placed(draw, ink, shape, margin=50)
    around = [(round(0.4 * side), round(0.4 * side)) for side in shape]
    larger = np.pad(seen, around)
    sheet = scenes.handwritten(draw, scenes.blank(draw, larger.shape), larger)
    return scenes.photograph(draw, scenes.tilted(draw, sheet, shape)), label


def blurred(draw: Draw) -> Photograph:
    sheet, label = written(draw, scenes.blank(draw, shape_of(draw)))
    return scenes.photograph(draw, scenes.moved(draw, sheet)), label


def low_resolution(draw: Draw) -> Photograph:
    """Photograph a digit of about 20 pixels in an image of 36 to 64 pixels."""
    shape = shape_of(draw)
    side = int(draw.integers(36, 65))
    scale = side / max(shape)
    ink, label = marks.digit(draw, draw.uniform(17, 24) / scale)
    sheet = scenes.handwritten(draw, scenes.blank(draw, shape), placed(draw, ink, shape, margin=round(1 / scale)))
    image = scenes.photograph(draw, sheet)
    return image.resize((round(shape[1] * scale), round(shape[0] * scale)), Image.Resampling.BOX), label


def several(draw: Draw) -> Photograph:
    """Photograph 2 to 6 digits: mostly a row; also a date, a form's cells in a row, or two lines."""
    form = draw.choice(("row", "date", "cells", "lines"), p=(0.55, 0.15, 0.2, 0.1))
    shape = shape_of(draw, wide=True)
    sheet = scenes.blank(draw, shape)
    if form == "cells":
        return in_cells(draw, sheet)
    if form == "lines":
        ink, label = two_lines(draw, shape[1])
    elif form == "date":
        separator = str(draw.choice(("-", "/", ".")))
        ink, label = row_to_fit(draw, int(draw.choice((4, 6))), shape[1], draw.uniform(60, 110), separator)
    else:
        ink, label = row_to_fit(draw, int(draw.integers(2, 7)), shape[1], draw.uniform(60, 110))
    return scenes.photograph(draw, scenes.handwritten(draw, sheet, placed(draw, ink, shape))), label


def two_lines(draw: Draw, width: int) -> tuple[Plane, str]:
    """Return two rows of 2 to 4 digits of about the same height, and the label in reading order."""
    height = draw.uniform(60, 85)
    (first, label), (second, more) = (row_to_fit(draw, int(draw.integers(2, 5)), width - 30, height) for _ in range(2))
    gap = round(height * draw.uniform(0.4, 0.8))
    return marks.joined([first, second], [0, int(draw.integers(0, 30))], [0, len(first) + gap]), label + more


def row_to_fit(draw: Draw, count: int, width: int, height: float, separators: str = "") -> tuple[Plane, str]:
    """Return a row of digits of a height in pixels, or less if they do not fit the width."""
    while True:
        ink, label = marks.row(draw, count, height, separators)
        if ink.shape[1] <= width - 24:
            return ink, label
        height *= 0.95


def in_cells(draw: Draw, sheet: Sheet) -> Photograph:
    """Write 2 to 6 digits into the cells of a form, which share their lines or stand apart."""
    count = int(draw.integers(2, 7))
    pitch = min(draw.uniform(0.7, 0.98) * (sheet.shape[1] - 24) / count, 110)
    height, gap = pitch * draw.uniform(1.1, 1.4), draw.choice((0, 0.15)) * pitch
    left, top = draw.uniform(12, sheet.shape[1] - count * pitch - 10), draw.uniform(12, sheet.shape[0] - height - 12)
    masks, _, label = marks.several(draw, count, 0.65 * pitch)
    line = box_line(draw)
    plane = np.zeros(sheet.shape[:2], np.float32)
    for index, ink in enumerate(masks):
        box = (left + index * pitch, top, left + (index + 1) * pitch - gap, top + height)
        sheet = scenes.framed(sheet, box, *line)
        put(draw, plane, ink, box)
    return scenes.photograph(draw, scenes.handwritten(draw, sheet, plane)), label


def touching(draw: Draw) -> Photograph:
    """Photograph 2 to 4 digits, each of which touches the next."""
    shape = shape_of(draw, wide=True)
    count = int(draw.integers(2, 5))
    ink, label = marks.touching_row(draw, count, draw.uniform(60, min(110, 320 / count)))
    sheet = scenes.handwritten(draw, scenes.blank(draw, shape), placed(draw, ink, shape))
    return scenes.photograph(draw, sheet), label


def marked(mark: Callable[[Draw, int], Plane]) -> Callable[[Draw], Photograph]:
    """Return a kind of a mark that is no digit, on plain paper."""

    def kind(draw: Draw) -> Photograph:
        shape = shape_of(draw)
        ink = mark(draw, int(digit_size(draw)))
        sheet = scenes.handwritten(draw, scenes.blank(draw, shape), placed(draw, ink, shape))
        return scenes.photograph(draw, sheet), ""

    return kind


def blank(draw: Draw) -> Photograph:
    return scenes.photograph(draw, scenes.blank(draw, shape_of(draw))), ""


KINDS: dict[str, Callable[[Draw], Photograph]] = {
    "plain paper": plain,
    "ruled paper": ruled,
    "squared paper": squared,
    "soft shadow": soft_shadow,
    "sharp shadow": sharp_shadow,
    "paper on a table": on_table,
    "form's box": complete_box,
    "form's box, cut": cut_box,
    "pencil": pencil,
    "tilted": tilted,
    "blurred": blurred,
    "low resolution": low_resolution,
    "several digits": several,
    "touching digits": touching,
    "letters": marked(marks.letter),
    "scribbles": marked(marks.scribble),
    "symbols": marked(marks.symbol),
    "blank paper": blank,
}
