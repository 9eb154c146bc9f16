"""The results.json of a comparison: what is written is read again."""

from pathlib import Path

import pytest

from mnist_amp.measuring.compare_records import (
    Comparison,
    FormerComparisonError,
    NotAComparisonError,
    Setting,
)
from tests.measuring.records import SLOWER_HERE, comparison, failed_speed, scores, speeds


def test_keys_of_the_cells() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001),
        *speeds("32-true", "32-true", 128, 64, 0.001, not_captured="why"),
        *scores("32-true", "32-true", 0.9),
        *scores("16-mixed", "16-mixed", 0.9, loss_scale=1.0, skipped_steps=0),
        failed_speed("16-true", 128, "why"),
    ]
    speed = ["cell", "effective", "seconds", "steps", "waiting_seconds"]
    score = ["cell", "effective", "value", "steps", "curve"]
    assert [list(measurement.to_json()) for measurement in cells] == [
        speed,
        [*speed, "not_captured"],
        score,
        [*score, "loss_scale", "skipped_steps"],
        ["cell", "error", "out_of_memory"],
    ]


def test_a_saved_comparison_is_read_again(tmp_path: Path) -> None:
    for found in (
        comparison([*SLOWER_HERE, failed_speed("16-true", 128, "why")]),
        comparison(SLOWER_HERE, epochs=None),
        comparison([], device="", half_hardware=None),
    ):
        found.save(tmp_path / "results.json")
        assert Comparison.load(tmp_path / "results.json") == found
        assert next(iter(found.to_json().items())) == ("schema", 2)


def test_the_device_is_unknown_before_the_first_measurement() -> None:
    assert {"device", "half_hardware"} & set(comparison([], device="", half_hardware=None).to_json()) == set()
    assert list(comparison([]).to_json())[-3:] == ["cells", "device", "half_hardware"]


@pytest.mark.parametrize("content", ["{}", "[1]", '{"schema": 2, "cells": [{}]}', '{"schema": 2, "cells": 3}'])
def test_json_that_is_not_a_comparison(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(NotAComparisonError):
        Comparison.load(tmp_path / "results.json")


def test_a_precision_with_the_effect_of_an_earlier_one_is_its_duplicate() -> None:
    found = comparison(SLOWER_HERE)
    assert [found.duplicate_of(name) for name in found.precisions] == [None, None, "bf16-mixed"]


def test_a_comparison_of_another_schema_is_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"hidden_dims": [128], "cells": []}')
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
