"""The results.json of a comparison: its keys stay, and files of earlier versions stay readable."""

import json
from pathlib import Path

import pytest

from mnist_amp.measuring.compare_records import (
    Cell,
    Comparison,
    FormerComparisonError,
    NotAComparisonError,
    Setting,
    Speed,
)
from tests.measuring.records import SLOWER_HERE, comparison, failed_speed, scores, sized, speeds

SAVED = Path(__file__).parents[2] / "docs" / "results" / "compare-cpu" / "results.json"
CELL = ["kind", "precision", "setting", "number"]


def test_a_saved_comparison_is_read_and_written_without_a_change(tmp_path: Path) -> None:
    found = Comparison.load(SAVED)
    assert found.to_json() == json.loads(SAVED.read_text(encoding="utf-8"), object_hook=_with_tuples)
    found.save(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == SAVED.read_text(encoding="utf-8")
    cell, speed = found.outcomes(Speed)[0]
    assert cell == Cell("speed", "32-true", sized(128, 64), 0)
    assert (speed.effective, speed.memory.weights) == ("32-true", 4 * (784 * 128 + 128 + 128 * 10 + 10))


def _with_tuples(values: dict[str, object]) -> dict[str, object]:
    curve = values.get("curve")
    return {**values, "curve": [tuple(point) for point in curve]} if isinstance(curve, list) else values


def test_keys_of_the_cells() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001),
        *speeds("32-true", "32-true", 128, 64, 0.001, not_captured="why"),
        *scores("32-true", "32-true", 0.9),
        *scores("16-mixed", "16-mixed", 0.9, loss_scale=1.0, skipped_steps=0),
        failed_speed("16-true", 128, "why"),
    ]
    speed = ["effective", "seconds", "steps", "memory", "data_seconds"]
    score = ["effective", "accuracy", "of", "steps", "curve"]
    assert [list(measurement.to_json()) for measurement in cells] == [
        [*CELL, *speed],
        [*CELL, *speed, "not_captured"],
        [*CELL, *score],
        [*CELL, *score, "loss_scale", "skipped_steps"],
        [*CELL, "error"],
    ]
    for found in (
        comparison(cells),
        comparison(SLOWER_HERE, epochs=None),
        comparison([], device="", half_hardware=None),
    ):
        assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_device_is_unknown_before_the_first_measurement() -> None:
    assert {"device", "half_hardware"} & set(comparison([], device="", half_hardware=None).to_json()) == set()
    assert list(comparison([]).to_json())[-3:] == ["cells", "device", "half_hardware"]


@pytest.mark.parametrize("content", ["{}", "[1]", '{"cells": [{}]}', '{"cells": 3}', '{"cells": [], "own": [1]}'])
def test_json_that_is_not_a_comparison(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(NotAComparisonError):
        Comparison.load(tmp_path / "results.json")


def test_a_precision_with_the_effect_of_an_earlier_one_is_its_duplicate() -> None:
    found = comparison(SLOWER_HERE)
    assert [found.duplicate_of(name) for name in found.precisions] == [None, None, "bf16-mixed"]


def test_a_comparison_of_widths_and_batch_sizes_alone_is_of_a_former_version(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"hidden_dims": [128], "batch_sizes": [64]}')
    with pytest.raises(FormerComparisonError):
        Comparison.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"data.batch_size": 64}, "batch_size 64"),
        ({"network.width": 8, "data.batch_size": 64, "optimizer.lr": 0.01}, "width 8, batch_size 64 and lr 0.01"),
        ({"network.p": 0.5, "optimizer.p": None}, "network.p 0.5 and optimizer.p null"),
        ({"optimizer.fused": True, "optimizer.betas": [0.9, 0.99]}, "fused true and betas [0.9, 0.99]"),
        ({"network": {"class_path": "my_nets.Net", "init_args": {"width": 3}}}, "network Net (width 3)"),
    ],
)
def test_settings_as_text_and_as_keys(values: dict[str, object], text: str) -> None:
    setting = Setting.of(values)
    assert str(setting) == text
    assert {setting: 1}[Setting.of(dict(values))] == 1
