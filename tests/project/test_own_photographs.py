"""`benchmarks/own_photographs.py`: its photographs, the correction by hand, and its table."""

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("cv2")
import own_photographs
from mnist_amp.images.files import read_image
from mnist_amp.images.mnist_form import mnist_form
from tests.data.image_files import write_image

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_photographs_show_the_ten_digits_and_depend_on_the_seed(tmp_path: Path) -> None:
    for name, seed in {"first": [0, 1], "again": [0, 1], "other": [0, 2]}.items():
        own_photographs.take(tmp_path / name, 12, seed)
    files = sorted(path.relative_to(tmp_path / "first").as_posix() for path in (tmp_path / "first").rglob("*.jpg"))
    assert files == sorted([*(f"{digit}/000{digit}.jpg" for digit in range(10)), "0/0010.jpg", "1/0011.jpg"])
    contents = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in ("first", "again", "other")}
    assert contents["first"] == contents["again"]
    assert len({*contents["first"], *contents["other"]}) == 24
    for file in files:
        assert (mnist_form(read_image(tmp_path / "first" / file)) > 128).sum() > 20


def test_check_by_hand(tmp_path: Path) -> None:
    """An image with a note is moved to the folder of its digit, unless it is a part of a photograph."""
    run = tmp_path / "lightning_logs" / "predict" / "version_0"
    run.mkdir(parents=True)
    with (run / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file"], ["taken/0/a.jpg"], ["taken/1/b.jpg"], ["taken/1/c.jpg"]])
    for name in ("digits/0/0001-a.png", "digits_check/7/0002-b.png", "digits_check/1/0003-c-d1.png"):
        write_image(tmp_path / name)
    (tmp_path / "digits" / "1").mkdir()
    assert own_photographs.check(tmp_path, tmp_path / "digits") == 2
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert left == ["digits/0/0001-a.png", "digits/1/0002-b.png", "digits_check/1/0003-c-d1.png"]


def test_table() -> None:
    record = {
        **{"held_out": 500, "before": {"own": 0.8, "mnist": 0.9701}, "device": "a CPU", "date": "2026-11-26"},
        **{"versions": {"torch": "2.15.0"}, "command": "python benchmarks/own_photographs.py"},
        "after": [
            {
                **{"taken": 50, "checked": 12, "learned": 50},
                **{"beside MNIST": {"own": 0.95, "mnist": 0.975}, "alone": {"own": 0.96, "mnist": 0.96}},
            }
        ],
    }
    assert (
        own_photographs.table(record)
        == """| trained on photographs | with a note, checked by hand | 500 other photographs | MNIST's test images |
|---|---|---|---|
| none: the default run | - | 80.0% | 97.01% |
| 50, beside MNIST | 12 | 95.0% | 97.50% |
| 50, alone | 12 | 96.0% | 96.00% |

On: a CPU, torch 2.15.0, 2026-11-26. `python benchmarks/own_photographs.py`
"""
    )
    saved = json.loads((RESULTS / "own-photographs.json").read_text(encoding="utf-8"))
    assert own_photographs.table(saved) == (RESULTS / "own-photographs.md").read_text(encoding="utf-8")
