from collections.abc import Sequence

import numpy as np
import pytest

from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.reporting.prediction_table import image_counts, prediction_table

DIGITS = tuple("0123456789")
SEVEN = [0.01] * 7 + [0.9] + [0.015] * 2
IMAGE = np.zeros((28, 28), dtype=np.uint8)
SURE, UNSURE = Tile("a/7.png", IMAGE, SEVEN, ""), Tile("b.png", IMAGE, [0.1] * 10, "unsure")
BLANK = Tile("blank.gif", IMAGE, None, "no ink: nothing stands out from the background")


def by_image(tiles: Sequence[Tile]) -> dict[str, list[Tile]]:
    """Give each image one tile, and a name of its own: the first of a name keeps it."""
    images: dict[str, list[Tile]] = {}
    for index, tile in enumerate(tiles):
        images[tile.name if tile.name not in images else f"{index}.png"] = [tile]
    return images


def test_few_images_are_listed_in_their_order() -> None:
    images = by_image([UNSURE, BLANK, SURE])
    assert prediction_table(images, DIGITS) == (
        """
file       guess  probability  note
b.png          0        10.0%  unsure
blank.gif                      no ink: nothing stands out from the background
a/7.png        7        90.0%
"""
    )
    assert image_counts(images) == "3 (1 with a note, 1 not scored)"


def test_of_many_images_those_with_a_note_are_listed() -> None:
    assert prediction_table(by_image([UNSURE, BLANK, *[SURE] * 29]), DIGITS) == (
        """
The images with a note:
file       guess  probability  note
blank.gif                      no ink: nothing stands out from the background
b.png          0        10.0%  unsure
"""
    )


@pytest.mark.parametrize(("count", "more"), [(30, ""), (1035, "and 1,005 more with a note: see predictions.csv\n")])
def test_at_most_30_images_are_listed(count: int, more: str) -> None:
    images = by_image([UNSURE] * count)
    lines = prediction_table(images, DIGITS).removesuffix(more).splitlines()[1:]
    head, *rows = lines if count <= 30 else lines[1:]
    assert head.split() == ["file", "guess", "probability", "note"]
    assert [row.split() for row in rows] == [[name, "0", "10.0%", "unsure"] for name in list(images)[:30]]
    assert image_counts(images) == f"{count:,} ({count:,} with a note, 0 not scored)"


def test_many_images_without_a_note_are_only_counted() -> None:
    assert prediction_table(by_image([SURE] * 31), DIGITS) == ""


def test_an_image_of_several_digits_is_one_line() -> None:
    """It has the number and the lowest probability; the note names the digit."""
    digits = [SURE, UNSURE, UNSURE, Tile("c", IMAGE, None, "not scored")]
    touching = [SURE._replace(note="may touch")] * 2
    assert prediction_table({"date.jpg": digits, "two.jpg": [SURE, SURE], "b.jpg": touching}, DIGITS) == (
        """
file      guess  probability  note
date.jpg   700?        10.0%  digit 2 and 3: unsure; digit 4: not scored
two.jpg      77        90.0%
b.jpg        77        90.0%  may touch
"""
    )


def test_of_more_than_ten_classes_the_next_guesses_are_listed() -> None:
    classes = [*(f"class {index}" for index in range(11)), "golden retriever of Labrador"]
    probabilities = [0.0] * 8 + [0.25, 0.0, 0.05, 0.7]
    tiles = [Tile("a.png", IMAGE, probabilities, "unsure"), BLANK._replace(note="no ink")]
    assert prediction_table(by_image(tiles), classes) == (
        """
file       guess                     probability  next guesses                  note
a.png      golden retr...f Labrador        70.0%  class 8 25.0%, class 10 5.0%  unsure
blank.gif                                                                       no ink
"""
    )
