"""The contact sheet: images as the model sees them, each with its prediction. Without torch.

It is drawn by Pillow. Matplotlib, which draws the plots, takes twenty times as long for a hundred images.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SCALE = 4  # pixels of the sheet, in each direction, for a pixel of the image
WIDTH, MARGIN, LINE = 28 * SCALE, 8, 13
COLUMNS = 25
SURE, UNSURE, NOT_SCORED = "black", "#b35c00", "#b00020"


class Tile(NamedTuple):
    """An image file with its prediction.

    Attributes:
        name: path of the file.
        image: the image as the model sees it, (28, 28) uint8.
        probabilities: of the ten digits, 0 to 1; None if the image was not scored.
        note: `unsure`, or why the image was not scored; empty for most images.
    """

    name: str
    image: NDArray[np.uint8]
    probabilities: list[float] | None
    note: str

    @property
    def guess(self) -> int | None:
        """The most probable digit."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def probability(self) -> float | None:
        """The probability of the guess, 0 to 1."""
        return None if self.probabilities is None else max(self.probabilities)


def contact_sheet(tiles: list[Tile], path: Path) -> None:
    """Draw the tiles in the given order, 25 in a row, and save them as an image file."""
    columns = min(len(tiles), COLUMNS)
    width, height = WIDTH + 2 * MARGIN, WIDTH + 2 * MARGIN + 2 * LINE
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for index, tile in enumerate(tiles):
        _draw(tile, sheet, index % columns * width + MARGIN, index // columns * height + MARGIN)
    sheet.save(path)


def _draw(tile: Tile, sheet: Image.Image, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    sheet.paste(Image.fromarray(tile.image).resize((WIDTH, WIDTH), Image.Resampling.NEAREST), (left, top))
    colour = NOT_SCORED if tile.guess is None else UNSURE if tile.note else SURE
    draw.text((left, top + WIDTH + 2), _shortened(_caption(tile), font), colour, font)
    draw.text((left, top + WIDTH + 2 + LINE), _shortened(Path(tile.name).name, font, keep_end=True), colour, font)


def _caption(tile: Tile) -> str:
    if tile.probability is None:
        return tile.note.partition(":")[0]
    return f"{tile.guess}  {tile.probability:.1%}{f'  {tile.note}' if tile.note else ''}"


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, keep_end: bool = False) -> str:
    """Shorten a text to the width of a tile."""
    if font.getlength(text) <= WIDTH:
        return text
    shorter = (f"...{text[-kept:]}" if keep_end else f"{text[:kept]}..." for kept in range(len(text) - 1, 0, -1))
    return next((short for short in shorter if font.getlength(short) <= WIDTH), "...")
