"""The contact sheet: images as the model sees them, each with its prediction. Without torch.

It is drawn by Pillow. Matplotlib, which draws the plots, takes twenty times as long for a hundred images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_amp.reporting.class_names import shortened, unique_names

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

WIDTH, MARGIN, LINE = 112, 8, 13  # pixels; images of 28 x 28 are enlarged four times
COLUMNS = 25
SURE, UNSURE, NOT_SCORED = "black", "#b35c00", "#b00020"


class Tile(NamedTuple):
    """An image file with its prediction.

    Attributes:
        name: path of the file.
        image: the image as the model sees it, (H, W) or (H, W, 3) uint8.
        probabilities: of each class, 0 to 1; None if the image was not scored.
        note: `unsure`, or why the image was not scored; empty for most images.
        row: of several digits in an image, from 1.
    """

    name: str
    image: NDArray[np.uint8]
    probabilities: list[float] | None
    note: str
    row: int = 1

    @property
    def guess(self) -> int | None:
        """The index of the most probable class."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def probability(self) -> float | None:
        """The probability of the guess, 0 to 1."""
        return None if self.probabilities is None else max(self.probabilities)


def contact_sheet(tiles: list[Tile], path: Path, classes: Sequence[str]) -> None:
    """Draw the tiles in the given order, 25 in a row, and save them as an image file.

    Args:
        tiles: the images with their predictions.
        path: file to write.
        classes: the name of each class, in the order of the probabilities.
    """
    names = unique_names(classes)
    columns = min(len(tiles), COLUMNS)
    width, height = WIDTH + 2 * MARGIN, WIDTH + 2 * MARGIN + 2 * LINE
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for index, tile in enumerate(tiles):
        _draw(tile, names, sheet, index % columns * width + MARGIN, index // columns * height + MARGIN)
    sheet.save(path)


def _draw(tile: Tile, names: list[str], sheet: Image.Image, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    image = _fitted(Image.fromarray(tile.image))
    sheet.paste(image, (left + (WIDTH - image.width) // 2, top + (WIDTH - image.height) // 2))
    colour = NOT_SCORED if tile.guess is None else UNSURE if tile.note else SURE
    draw.text((left, top + WIDTH + 2), _caption(tile, names, font), colour, font)
    draw.text((left, top + WIDTH + 2 + LINE), _ending(Path(tile.name).name, font), colour, font)


def _fitted(image: Image.Image) -> Image.Image:
    """Scale an image to the width of a tile, or to its height. An enlarged image shows its pixels."""
    scale = WIDTH / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def _caption(tile: Tile, names: list[str], font: Font) -> str:
    """Return the guess and its probability; the note, which the colour tells as well, only if there is room."""
    if tile.guess is None:
        return _beginning(tile.note.partition(":")[0], font)
    name, probability = names[tile.guess], f"{tile.probability:.1%}"
    captions = (
        *([f"{name}  {probability}  {tile.note}"] if tile.note else []),
        *(f"{shortened(name, length)}  {probability}" for length in range(len(name), 3, -1)),
    )
    return next((text for text in captions if font.getlength(text) <= WIDTH), f"{name[:1]}  {probability}")


def _beginning(text: str, font: Font) -> str:
    shorter = (f"{text[:kept]}..." for kept in range(len(text) - 1, 0, -1))
    return next((short for short in (text, *shorter) if font.getlength(short) <= WIDTH), "...")


def _ending(text: str, font: Font) -> str:
    shorter = (f"...{text[-kept:]}" for kept in range(len(text) - 1, 0, -1))
    return next((short for short in (text, *shorter) if font.getlength(short) <= WIDTH), "...")
