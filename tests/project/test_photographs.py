"""The drawn photographs: their labels and sizes; the counts and the table of their benchmark."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import photograph_marks
import photograph_sets
import photographs
import predicted_files

LABELS = dict.fromkeys(photographs.NO_DIGIT, "") | {"several digits": r"\d{2,8}", "touching digits": r"\d{2,4}"}


@pytest.mark.parametrize("kind", photograph_sets.KINDS)
def test_a_kind_of_photographs(kind: str) -> None:
    drawn = [*photograph_sets.make(kind, seed=1, count=3), *photograph_sets.make(kind, seed=2, count=1)]
    again = list(photograph_sets.make(kind, seed=1, count=3))
    for (image, label), (same, same_label) in zip(drawn[:3], again, strict=True):
        assert (image.mode, image.size, image.tobytes(), label) == (same.mode, same.size, same.tobytes(), same_label)
    for (first, _), (second, _) in itertools.combinations(drawn, 2):
        assert first.tobytes() != second.tobytes()
    for image, label in drawn:
        assert image.mode in ("L", "RGB")
        assert re.fullmatch(LABELS.get(kind, r"\d"), label)
        short, long = sorted(image.size)
        assert 30 <= short <= long <= 64 if kind == "low resolution" else 400 == short <= long <= 480


def test_files(tmp_path: Path) -> None:
    labels = photograph_sets.save("several digits", 1, 2, tmp_path / "set")
    assert labels == [label for _, label in photograph_sets.make("several digits", 1, 2)]
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == ["0000.jpg", "0001.jpg"]


def test_parts_of_neighbours_are_left_out() -> None:
    images, labels = photograph_marks.test_digits()
    assert len(images) == len(labels) == 9868
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 10:14] = 255
    assert not photograph_marks._has_neighbour(image)
    image[12:14, 20:22] = 255
    assert photograph_marks._has_neighbour(image)
    image[12:14, 20:22], image[1:2, 10:12] = 0, 255  # above it: as the bar of a 5
    assert not photograph_marks._has_neighbour(image)


def test_marks_that_touch() -> None:
    """The first is 3 wide, but only 2 in its lower row, where the second one begins."""
    first = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    second = np.array([[1, 1]], np.float32)
    assert photograph_marks.contact(first, second, 0) == 2
    assert photograph_marks.contact(first, second, 1) == 1
    assert photograph_marks.joined([first, second], [0, 2], [0, 1]).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def row(file: str, guess: str = "", probability: str = "", note: str = "", **others: str) -> dict[str, str]:
    return {"file": file, "guess": guess, "probability": probability, "note": note, **others}


def test_readings_of_files() -> None:
    """A file has a row for each digit; today's table has no columns of pages and digits."""
    rows = [
        row("set/0001.jpg", "2", "0.99", digit="1", number="20"),
        row("set/0001.jpg", "0", "0.7", "unsure", digit="2", number="20"),
        row("set/0000.jpg", "7", "0.95"),
        row("set/0002.jpg", note="no ink: nothing stands out from the background"),
    ]
    seven, twenty, nothing = predicted_files.readings(rows)
    assert (seven.file.name, seven.guess, seven.probability, seven.notes, seven.sure) == (
        "0000.jpg",
        "7",
        0.95,
        (),
        True,
    )
    assert (twenty.guess, twenty.probability, twenty.notes, twenty.sure) == ("20", 0.7, ("unsure",), False)
    assert (nothing.guess, nothing.probability, nothing.sure) == ("", 0, False)


def test_counts() -> None:
    rows = [
        row("0.jpg", "7", "0.99"),
        row("1.jpg", "1", "0.99"),  # a sure mistake
        row("2.jpg", "1", "0.99", "may be no digit"),
        row("3.jpg", "7", "0.6", "unsure"),
        row("4.jpg", note="no ink"),
    ]
    counts = photographs.counted(["7"] * 5, predicted_files.readings(rows))
    assert counts == {
        **{"images": 5, "right": 2, "noted": 3, "right_and_noted": 1},
        "sure_mistakes": ["0001: 7 as 1"],
    }
    letters = photographs.counted([""] * 5, predicted_files.readings(rows))
    assert letters == {
        **{"images": 5, "right": 1, "noted": 3, "right_and_noted": 1},
        "sure_mistakes": ["0000: no digit as 7", "0001: no digit as 1"],
    }


def kind(right: int, sure: int) -> dict[str, object]:
    return {"images": 200, "right": right, "noted": 20, "right_and_noted": 4, "sure_mistakes": ["0001: 7 as 1"] * sure}


def record(plain_right: int, false_notes: int, per_second: float, **kinds: dict[str, object]) -> dict[str, object]:
    plain = {"images": 1000, "right": plain_right, "right_unchanged": 970, "sure_mistakes": 4, "right_and_unsure": 45}
    speed = {"images": 600, "per_second": per_second, "per_cpu_second": 320.4}
    return {"kinds": kinds, "plain": plain | {"right_and_other_note": false_notes}, "reading": speed}


def test_targets() -> None:
    met = record(969, 20, 300, pencil=kind(180, 4), letters=kind(0, 4), **{"several digits": kind(170, 4)})
    assert photographs.missed_targets(met) == []
    missed = record(968, 21, 299, pencil=kind(179, 5), letters=kind(0, 5), **{"several digits": kind(169, 0)})
    assert photographs.missed_targets(missed) == [
        "pencil: 89.5% right, at least 90%",
        "pencil: 2.5% sure mistakes, at most 2%",
        "letters: 2.5% sure mistakes, at most 2%",
        "several digits: 84.5% right, at least 85%",
        "files of 28 x 28 pixels: 0.20% less accurate, at most 0.1%",
        "files of 28 x 28 pixels: 2.1% false notes other than unsure, at most 2%",
        "reading: 299 images a second, at least 300",
    ]


def test_table() -> None:
    where = {"device": "a CPU", "versions": {"torch": "2.15.0"}, "date": "2026-11-26"}
    saved = record(969, 20, 301.2, pencil=kind(180, 4)) | where | {"command": "python benchmarks/photographs.py"}
    assert (
        photographs.table(saved)
        == """| drawn photographs of | images | right | sure mistakes | with a note | right, with a note |
|---|---|---|---|---|---|
| pencil | 200 | 90.0% | 2.0% | 10.0% | 2.0% |

| MNIST's test images as | images | right | `--preprocess none` | sure mistakes | right, but unsure | other note |
|---|---|---|---|---|---|---|
| files of 28 x 28 pixels | 1,000 | 96.90% | 97.00% | 0.40% | 4.50% | 2.00% |

`predict` reads 301 photographs a second, and 320 per second of CPU time: medians of 5 rounds of 600 files.

Several digits are right if all are, in reading order. Letters, scribbles and symbols are right if no digit is found. \
A sure mistake has a probability of 80 % or more for each digit, and no note.

On: a CPU, torch 2.15.0, 2026-11-26. `python benchmarks/photographs.py`
"""
    )
