"""The contact sheet: its images, its colours and its texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_amp.reporting.contact_sheet import Tile, contact_sheet

DIGITS = tuple("0123456789")
SEVEN = [0.01] * 7 + [0.9] + [0.015] * 2


def test_each_image_is_enlarged_and_in_order(tmp_path: Path) -> None:
    images = [np.full((28, 28), 3 * index, dtype=np.uint8) for index in range(27)]
    tiles = [Tile(f"{index}.png", image, SEVEN, "") for index, image in enumerate(images)]
    contact_sheet(tiles, tmp_path / "sheet.png", DIGITS)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (25 * 128, 2 * 154)
    for index, image in enumerate(images):
        left, top = index % 25 * 128 + 8, index // 25 * 154 + 8
        shown = np.asarray(sheet.convert("L").crop((left, top, left + 112, top + 112)))
        np.testing.assert_array_equal(shown, np.full((112, 112), image[0, 0]))


def caption(tile: Tile, path: Path, classes: Sequence[str] = DIGITS) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw a sheet of one image and return its part below the image, (34, 128, 3): the guess and the name."""
    contact_sheet([tile], path, classes)
    return np.asarray(Image.open(path))[120:]


def test_the_colour_says_whether_the_model_is_sure(tmp_path: Path) -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    path = tmp_path / "sheet.png"
    for tile, colour in (
        (Tile("7.png", image, SEVEN, ""), (0, 0, 0)),
        (Tile("7.png", image, SEVEN, "unsure"), (0xB3, 0x5C, 0)),
        (Tile("7.png", image, None, "no ink"), (0xB0, 0, 0x20)),
    ):
        found = caption(tile, path)
        assert (found == colour).all(axis=2).any(), tile.note
        assert (tile.guess, tile.probability) == ((7, 0.9) if tile.probabilities else (None, None))


def test_long_names_lose_their_beginning(tmp_path: Path) -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    long, longer = (caption(Tile(f"{'x' * count}-7.png", image, SEVEN, ""), tmp_path / "s.png") for count in (100, 200))
    np.testing.assert_array_equal(long, longer)
    assert not (long[:, -4:] < 255).any()  # nothing reaches into the next tile


def test_images_of_any_size_and_in_colour_are_scaled_to_the_tile(tmp_path: Path) -> None:
    colour = (200, 100, 50)
    wide = np.full((32, 64, 3), colour, dtype=np.uint8)
    large = np.full((224, 224), 90, dtype=np.uint8)
    contact_sheet([Tile("a.png", wide, SEVEN, ""), Tile("b.png", large, SEVEN, "")], tmp_path / "sheet.png", DIGITS)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet[36:92, 8:120] == colour).all()
    assert (sheet[8:36, 8:120] == 255).all()
    assert (sheet[8:120, 136:248] == 90).all()


def test_the_probability_stays_beside_a_long_name_of_a_class(tmp_path: Path) -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    classes = [*DIGITS[:7], "an all-terrain vehicle on a mountain", "8", "9"]
    texts = []
    for probability in (0.9, 0.8):
        found = caption(
            Tile("7.png", image, [0.0] * 7 + [probability, 0.0, 0.0], "unsure"), tmp_path / "s.png", classes
        )
        assert not (found[:, -4:] < 255).any()
        texts.append(found)
    assert (texts[0] != texts[1]).any()
