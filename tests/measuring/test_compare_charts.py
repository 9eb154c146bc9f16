"""The charts of a comparison, from literal records."""

import doctest
import itertools
from typing import Any

import pytest

from mnist_amp.measuring import compare_charts
from mnist_amp.measuring.compare_charts import memory_axis, memory_charts, score_charts, time_charts
from mnist_amp.measuring.compare_records import Cell, Comparison, Measurement, Metric, Score, Setting
from tests.measuring.records import (
    SLOWER_HERE,
    comparison,
    failed_speed,
    profiled,
    scores,
    sized,
    speeds_at,
)
from tests.reporting.test_charts import legend_of, lines


def measured(axes: dict[str, list[Any]], **changed: Any) -> Comparison:
    """Return a comparison of two precisions at all settings of the axes; the first is the run's own."""
    settings = [Setting.of(dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    cells = []
    for setting, (precision, seconds) in itertools.product(settings, (("32-true", 0.001), ("bf16-mixed", 0.002))):
        cells += [*speeds_at(setting, precision, precision, seconds), profiled(precision, precision, setting)]
    values = {"axes": axes, "own": settings[0], "precisions": ["32-true", "bf16-mixed"], **changed}
    return comparison(cells, **values)


def test_each_axis_with_two_values_has_a_chart_of_time() -> None:
    found = measured({"optimizer.fused": [True, False], "network.width": [8, 16], "data.batch_size": [64]})
    drawn = time_charts(found)
    assert {name: drawing.title for name, drawing in drawn.items()} == {
        "time-fused.png": "Time of a step by fused, with width and batch_size fixed in each panel",
        "time-width.png": "Time of a step by width, with fused and batch_size fixed in each panel",
    }
    fused, width = (drawing.draw() for drawing in drawn.values())
    assert [axes.get_title() for axes in fused.axes] == ["width 8 and batch_size 64", "width 16 and batch_size 64"]
    assert [axes.get_xlabel() for axes in width.axes] == ["width", "width"]
    assert lines(fused.axes[0]) == {"32-true": [(0, 1), (1, 1)], "bf16-mixed": [(0, 2), (1, 2)]}
    assert lines(width.axes[0]) == {"32-true": [(8, 1), (16, 1)], "bf16-mixed": [(8, 2), (16, 2)]}
    assert fused.get_suptitle() == drawn["time-fused.png"].title


def test_the_one_setting_of_the_other_axes_is_in_the_title() -> None:
    (drawing,) = time_charts(measured({"network.width": [8, 16], "data.batch_size": [64]})).values()
    assert drawing.title == "Time of a step by width, with batch_size 64"
    figure = drawing.draw()
    assert (figure.get_suptitle(), [axes.get_title() for axes in figure.axes]) == (drawing.title, [""])


def test_of_many_panels_the_six_nearest_to_the_run_are_drawn() -> None:
    sizes, widths = [32, 64, 128, 256], [1, 2, 3]
    axes = {"trainer.x": [1, 2], "network.width": widths, "data.batch_size": sizes}
    own = Setting.of({"trainer.x": 1, "network.width": 3, "data.batch_size": 256})
    drawing = time_charts(measured(axes, own=own))["time-x.png"]
    assert drawing.title == (
        "Time of a step by x, with width and batch_size fixed in each panel (6 of 12 combinations)"
    )
    assert [axes.get_title() for axes in drawing.draw().axes] == [
        *("width 1 and batch_size 256", "width 2 and batch_size 256"),
        *(f"width 3 and batch_size {size}" for size in sizes),
    ]


@pytest.mark.parametrize("axes", [{}, {"data.batch_size": [64]}])
def test_a_comparison_of_one_setting_has_charts_by_precision(axes: dict[str, list[Any]]) -> None:
    found = measured(axes)
    drawings = time_charts(found) | memory_charts(found)
    with_setting = ", with batch_size 64" if axes else ""
    assert {name: drawing.title for name, drawing in drawings.items()} == {
        "time.png": f"Time of a step by precision{with_setting}",
        "memory.png": f"Memory by precision{with_setting}",
    }
    for drawing in drawings.values():
        figure = drawing.draw()
        (panel,) = figure.axes
        assert [label.get_text() for label in panel.get_xticklabels()] == ["32-true", "bf16-mixed"]
        assert (panel.get_xlabel(), legend_of(figure)) == ("precision", [])


def test_the_start_from_which_a_precision_is_faster_is_drawn() -> None:
    (drawing,) = time_charts(comparison(SLOWER_HERE)).values()
    start = drawing.draw().axes[0].lines[-1]
    assert start.get_xdata() == pytest.approx([256, 256])
    assert start.get_color() == "C1"  # of bf16-mixed


def test_memory() -> None:
    (drawing,) = memory_charts(measured({"network.width": [8, 16], "data.batch_size": [64, 512]})).values()
    assert drawing.title == "Memory by batch_size, with width fixed in each panel"
    assert lines(drawing.draw().axes[1]) == {"32-true": [(64, 8), (512, 8)], "bf16-mixed": [(64, 8), (512, 8)]}


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({}, None),
        ({"data.batch_size": [64]}, None),
        ({"optimizer.fused": [True, False], "data.batch_size": [64]}, "optimizer.fused"),
        ({"a.x": [1, 2], "a.y": [1, 2], "a.z": [1, 2]}, "a.z"),
        ({"a.x": [1, 2], "a.y": ["SGD", "Adam"]}, "a.x"),
    ],
)
def test_the_axis_of_the_chart_of_memory(axes: dict[str, list[Any]], expected: str | None) -> None:
    assert memory_axis(axes) == expected


def test_what_was_not_measured_has_no_chart() -> None:
    found = comparison([failed_speed("32-true", 128, "why")])
    assert (time_charts(found), memory_charts(found), score_charts(found)) == ({}, {}, {})


def test_charts_of_any_metric() -> None:
    cells = [*scores("32-true", "32-true", 0.5), *scores("bf16-mixed", "bf16-mixed", 0.25)]
    drawn = score_charts(comparison(cells, metric=Metric("val_loss", "min")))
    assert {name: drawing.title for name, drawing in drawn.items()} == {
        "metric.png": "val_loss by seed",
        "loss.png": "Training loss",
    }
    metric, loss = (drawing.draw().axes[0] for drawing in drawn.values())
    assert metric.get_ylabel() == "val_loss"
    assert lines(loss) == {"32-true": [(1, 2.3), (2, 1.9)], "bf16-mixed": [(1, 2.3), (2, 1.9)]}


def test_a_module_that_returns_no_loss_has_no_chart_of_losses() -> None:
    cell = Cell("score", "32-true", sized(128, 64), 0)
    fit = Measurement(cell, Score("32-true", 0.5, steps=2, curve=[]))
    assert list(score_charts(comparison([fit]))) == ["metric.png"]


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(compare_charts) == (0, 1)
