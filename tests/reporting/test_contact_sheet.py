"""The sheet of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from mnist_amp.reporting.contact_sheet import Tile, contact_sheet

SEVEN = [0.01] * 7 + [0.9] + [0.015] * 2


def test_each_picture_enlarged_in_its_place(tmp_path: Path) -> None:
    images = [np.full((28, 28), 3 * place, dtype=np.uint8) for place in range(27)]
    tiles = [Tile(f"{place}.png", image, SEVEN, "") for place, image in enumerate(images)]
    contact_sheet(tiles, tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (25 * 128, 2 * 154)
    for place, image in enumerate(images):
        left, top = place % 25 * 128 + 8, place // 25 * 154 + 8
        shown = np.asarray(sheet.convert("L").crop((left, top, left + 112, top + 112)))
        np.testing.assert_array_equal(shown, np.full((112, 112), image[0, 0]))


def words(tile: Tile, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the part of a sheet of one picture that has its guess and its name, (38, 128, 3)."""
    contact_sheet([tile], path)
    return np.asarray(Image.open(path))[120:]


def test_colours_of_guesses_doubts_and_faults(tmp_path: Path) -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    path = tmp_path / "sheet.png"
    for tile, colour in (
        (Tile("7.png", image, SEVEN, ""), (0, 0, 0)),
        (Tile("7.png", image, SEVEN, "unsure"), (0xB3, 0x5C, 0)),
        (Tile("7.png", image, None, "no ink"), (0xB0, 0, 0x20)),
    ):
        found = words(tile, path)
        assert (found == colour).all(axis=2).any(), tile.note
        assert (tile.guess, tile.probability) == ((7, 0.9) if tile.probabilities else (None, None))


def test_long_names_are_cut_at_their_beginning(tmp_path: Path) -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    long, longer = (words(Tile(f"{'x' * count}-7.png", image, SEVEN, ""), tmp_path / "s.png") for count in (100, 200))
    np.testing.assert_array_equal(long, longer)
    assert not (long[:, -4:] < 255).any()  # nothing reaches the next tile
