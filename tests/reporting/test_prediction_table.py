import numpy as np
import pytest

from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.reporting.prediction_table import prediction_table

DIGITS = tuple("0123456789")
SEVEN = [0.01] * 7 + [0.9] + [0.015] * 2
IMAGE = np.zeros((28, 28), dtype=np.uint8)
SURE, UNSURE = Tile("a/7.png", IMAGE, SEVEN, ""), Tile("b.png", IMAGE, [0.1] * 10, "unsure")
BLANK = Tile("blank.gif", IMAGE, None, "no ink: nothing stands out from the background")


def test_few_images_are_listed_in_their_order() -> None:
    assert prediction_table(
        [UNSURE, BLANK, SURE], "predict/version_0", ["predictions.csv", "predictions.png"], DIGITS
    ) == (
        """
file       guess  probability  note
b.png          0        10.0%  unsure
blank.gif                      no ink: nothing stands out from the background
a/7.png        7        90.0%

images  3 (1 unsure, 1 not scored)
files   predict/version_0/ (predictions.csv, predictions.png)"""
    )


def test_of_many_images_those_with_a_note_are_listed() -> None:
    text = prediction_table([UNSURE, BLANK, *[SURE] * 29], "predict/version_0", ["predictions.csv"], DIGITS)
    assert text == (
        """
file       guess  probability  note
blank.gif                      no ink: nothing stands out from the background
b.png          0        10.0%  unsure

images  31 (1 unsure, 1 not scored)
files   predict/version_0/ (predictions.csv)"""
    )


@pytest.mark.parametrize(("count", "more"), [(30, ""), (1035, "and 1,005 more with a note: see predictions.csv\n")])
def test_at_most_30_images_are_listed(count: int, more: str) -> None:
    text = prediction_table([UNSURE] * count, "out", ["predictions.csv"], DIGITS)
    row = "b.png      0        10.0%  unsure\n"
    assert text == (
        f"\nfile   guess  probability  note\n{row * 30}{more}\n"
        f"images  {count:,} ({count:,} unsure, 0 not scored)\nfiles   out/ (predictions.csv)"
    )


def test_many_images_without_a_note_are_only_counted() -> None:
    text = prediction_table([SURE] * 31, "out", ["predictions.csv"], DIGITS)
    assert text == "\nimages  31 (0 unsure, 0 not scored)\nfiles   out/ (predictions.csv)"


def test_of_more_than_ten_classes_the_next_guesses_are_listed() -> None:
    classes = [*(f"class {index}" for index in range(11)), "golden retriever of Labrador"]
    probabilities = [0.0] * 8 + [0.25, 0.0, 0.05, 0.7]
    tiles = [Tile("a.png", IMAGE, probabilities, "unsure"), BLANK._replace(note="no ink")]
    assert prediction_table(tiles, "out", ["predictions.csv"], classes) == (
        """
file       guess                     probability  next guesses                  note
a.png      golden retr...f Labrador        70.0%  class 8 25.0%, class 10 5.0%  unsure
blank.gif                                                                       no ink

images  2 (1 unsure, 1 not scored)
files   out/ (predictions.csv)"""
    )
