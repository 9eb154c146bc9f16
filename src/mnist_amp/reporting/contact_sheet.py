"""A sheet of pictures as the model sees them, each with its guess; from plain records, with no torch.

By Pillow, and not by matplotlib as in `plots`, which takes twenty times as long for a hundred of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SCALE = 4  # screen pixels to a pixel of the image
WIDTH, MARGIN, LINE = 28 * SCALE, 8, 13
COLUMNS = 25
INK, DOUBT, FAULT = "black", "#b35c00", "#b00020"


@dataclass(frozen=True)
class Tile:
    """A picture file: what the model saw of it, (28, 28) uint8, and what it made of it.

    Attributes:
        probabilities: of the ten digits, 0 to 1; None where it was not scored.
        note: what is to be said of it: that the model is unsure, or why it was not scored.
    """

    name: str
    image: NDArray[np.uint8]
    probabilities: list[float] | None
    note: str

    @property
    def guess(self) -> int | None:
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def probability(self) -> float | None:
        return None if self.probabilities is None else max(self.probabilities)


def contact_sheet(tiles: list[Tile], path: Path) -> None:
    """Draw the tiles in their order, at most 25 in a row."""
    columns = min(len(tiles), COLUMNS)
    width, height = WIDTH + 2 * MARGIN, WIDTH + 2 * MARGIN + 2 * LINE
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, tile in enumerate(tiles):
        left, top = place % columns * width + MARGIN, place // columns * height + MARGIN
        enlarged = Image.fromarray(tile.image).resize((WIDTH, WIDTH), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        colour = FAULT if tile.guess is None else DOUBT if tile.note else INK
        draw.text((left, top + WIDTH + 2), _fitted(_answer(tile), font), colour, font)
        draw.text((left, top + WIDTH + 2 + LINE), _fitted(Path(tile.name).name, font, keep_end=True), colour, font)
    sheet.save(path)


def _answer(tile: Tile) -> str:
    if tile.probability is None:
        return tile.note.partition(":")[0]
    return f"{tile.guess}  {tile.probability:.1%}{f'  {tile.note}' if tile.note else ''}"


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, keep_end: bool = False) -> str:
    """Shorten a text to the width of a tile."""
    if font.getlength(text) <= WIDTH:
        return text
    shorter = (f"...{text[-kept:]}" if keep_end else f"{text[:kept]}..." for kept in range(len(text) - 1, 0, -1))
    return next((short for short in shorter if font.getlength(short) <= WIDTH), "...")
