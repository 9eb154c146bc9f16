"""The table of exported files."""

from typing import Any

import pytest

from mnist_amp.inference.export_report import FileRow, cells
from mnist_amp.inference.export_results import Accuracy

ROW = FileRow(
    file="model-int8.onnx",
    bytes=107_960,
    arithmetic="int8",
    accuracy=Accuracy(45, 50),
    differing_guesses=1,
    largest_difference=1.33,
    allowed_difference=None,
    allowed_guesses=1,
    single_seconds=0.0000104,
    bulk_seconds=0.0007,
    bulk_images=50,
)


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"allowed_guesses": 1}, "1 guess"),
        ({"allowed_guesses": 2000}, "2,000 guesses"),
        ({"allowed_guesses": None, "allowed_difference": 0.1434}, "0.14"),
    ],
)
def test_what_is_allowed(values: dict[str, Any], allowed: str) -> None:
    head, line = cells([ROW._replace(**values)])
    assert dict(zip(head, line, strict=True))["allowed"] == allowed


@pytest.mark.parametrize(("images", "time"), [(50, "-"), (999, "-"), (1000, "0.7")])
def test_a_batch_of_fewer_images_does_not_tell_the_time_of_1000(images: int, time: str) -> None:
    head, line = cells([ROW._replace(bulk_images=images)])
    assert line == [
        *("model-int8.onnx", "107,960", "int8", "90.00%", "1", "1.3", "1 guess", "0.010", time),
    ]
    assert head[-1] == "1,000 images, ms"
