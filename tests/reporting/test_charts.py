"""The charts of compare and profile: their ticks, labels and lines."""

import doctest

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_amp.reporting import charts
from mnist_amp.reporting.charts import MemoryPoint, TimePoint
from tests.reporting.test_chart_style import shown

PRECISIONS = ["32-true", "tf32", "bf16-mixed"]


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return the points of the lines that have a name in the legend."""
    found = {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    return {name: list(map(tuple, points)) for name, points in found.items() if not name.startswith("_")}


def colours_of(figure: Figure) -> dict[str, str]:
    return {str(line.get_label()): str(line.get_color()) for axes in figure.axes for line in axes.lines}


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_times() -> None:
    points = [
        TimePoint(panel="batch_size 64", precision="32-true", x=256, seconds=[0.004, 0.002, 0.003]),
        TimePoint("batch_size 64", "32-true", 128, [0.001]),
        TimePoint("batch_size 64", "bf16-mixed", 128, [0.002]),
        TimePoint("batch_size 64", "bf16-mixed", 256, [0.0025]),
        TimePoint("batch_size 1024", "32-true", 1280, [0.01]),
    ]
    starts = {("batch_size 64", "bf16-mixed"): 192.0, ("batch_size 1024", "32-true"): 9999.0}
    figure = charts.times(points, starts, "hidden_dim", PRECISIONS, "Time of a step by hidden_dim")
    small, large = figure.axes
    assert figure.get_suptitle() == "Time of a step by hidden_dim"
    assert [axes.get_title() for axes in (small, large)] == ["batch_size 64", "batch_size 1024"]
    assert (small.get_xlabel(), small.get_xscale(), small.get_ylabel()) == ("hidden_dim", "log", "time of a step, ms")
    assert np.array(lines(small)["32-true"]) == pytest.approx(np.array([(128, 1), (256, 3)]))
    assert np.array(lines(small)["bf16-mixed"]) == pytest.approx(np.array([(128, 2), (256, 2.5)]))
    start = small.lines[-1]
    assert (np.asarray(start.get_xdata()).tolist(), start.get_linestyle()) == ([192, 192], "--")
    band = small.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(vertex, 9)) for vertex in np.asarray(band)} == {(128, 1), (256, 2), (256, 4)}
    assert [label.get_text() for label in small.get_xticklabels()] == ["128", "256", "1,280"]
    assert (shown(small, "y"), shown(large, "y")) == (["1", "2", "5"], ["5", "10", "20"])
    assert len(large.lines) == 1  # 9999 is no width that was measured
    assert legend_of(figure) == ["32-true", "bf16-mixed"]


def test_a_precision_has_the_same_colour_in_all_charts() -> None:
    expected = {"32-true": "C0", "bf16-mixed": "C2"}  # tf32 was not measured
    pairs = [("", name) for name in ("bf16-mixed", "32-true")]
    times = charts.times([TimePoint(*pair, 64, [0.1]) for pair in pairs], {}, "batch_size", PRECISIONS)
    memory = charts.memory([MemoryPoint(*pair, 64, 1) for pair in pairs], "batch_size", PRECISIONS)
    losses = charts.losses({"bf16-mixed": [(1, 2.3)], "32-true": [(1, 2.3)]}, PRECISIONS)
    for figure in (times, memory, losses):
        assert colours_of(figure) == expected
    scores = charts.scores({"bf16-mixed": [0.5], "32-true": [0.5]}, "val_accuracy", PRECISIONS, is_share=True)
    assert [line.get_color() for line in scores.axes[0].lines[::2]] == ["C2", "C0"]


def test_lines_on_top_of_each_other_have_other_dashes() -> None:
    points = [TimePoint("", name, size, [0.1]) for name in PRECISIONS for size in (64, 512)]
    figure = charts.times(points, {}, "batch_size", PRECISIONS)
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--", ":"]


def test_times_by_precision_have_no_legend() -> None:
    points = [TimePoint("", name, name, [0.001, 0.002]) for name in PRECISIONS]
    figure = charts.times(points, {}, "precision", PRECISIONS)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == PRECISIONS
    assert [np.asarray(line.get_xydata()).tolist() for line in axes.lines] == [[[0, 1.5]], [[1, 1.5]], [[2, 1.5]]]
    assert shown(axes, "y") == ["0.5", "1", "2"]
    assert legend_of(figure) == []


@pytest.mark.parametrize(
    ("slowest", "expected"),
    [
        (1.1, ["0.5", "1", "2"]),
        (10.0, ["1", "2", "5", "10"]),
        (1000.0, ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1,000"]),
    ],
)
def test_ticks_of_the_time(slowest: float, expected: list[str]) -> None:
    points = [TimePoint("", "32-true", size, [1e-3 * ms]) for size, ms in ((64, 1.0), (512, slowest))]
    assert shown(charts.times(points, {}, "batch_size", PRECISIONS).axes[0], "y") == expected


def test_times_of_words_and_of_zero() -> None:
    by_word = [TimePoint("", "32-true", word, [0.001]) for word in ("true", "false")]
    by_number = [TimePoint("", "32-true", value, [0.001]) for value in (0.1, 0.0)]
    words, numbers = (charts.times(points, {}, "axis", PRECISIONS).axes[0] for points in (by_word, by_number))
    assert [label.get_text() for label in words.get_xticklabels()] == ["true", "false"]
    assert lines(words) == {"32-true": [(0, 1), (1, 1)]}
    assert [label.get_text() for label in numbers.get_xticklabels()] == ["0", "0.1"]
    assert (words.get_xscale(), numbers.get_xscale()) == ("linear", "linear")  # 0 has no logarithm


def test_many_panels_stand_in_several_rows() -> None:
    points = [TimePoint(f"batch_size {n}", "32-true", 8, [0.001]) for n in range(6)]
    figure = charts.times(points, {}, "width", PRECISIONS)
    assert len(figure.axes) == 6
    assert figure.get_size_inches().tolist() == pytest.approx([17.0, 7.6])


def test_memory() -> None:
    points = [
        MemoryPoint(panel="hidden_dim 128", precision="32-true", x=1024, bytes=3_000_000),
        MemoryPoint("hidden_dim 128", "32-true", 64, 2_000_000),
        MemoryPoint("hidden_dim 4096", "bf16-mixed", 64, 9_000_000),
    ]
    figure = charts.memory(points, "batch_size", PRECISIONS, "Memory by batch_size")
    assert [axes.get_title() for axes in figure.axes] == ["hidden_dim 128", "hidden_dim 4096"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["batch_size"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["memory, MB"] * 2
    assert [lines(axes) for axes in figure.axes] == [{"32-true": [(64, 2), (1024, 3)]}, {"bf16-mixed": [(64, 9)]}]
    assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0]
    assert [axes.get_ylim()[1] for axes in figure.axes] == pytest.approx([3.3, 9.9])


def test_scores_in_percent() -> None:
    scores = {"32-true": [0.5, 0.75], "bf16-mixed": [0.25]}
    axes = charts.scores(scores, "val_accuracy", PRECISIONS, is_share=True).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("precision", "val_accuracy, %")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32-true", "bf16-mixed"]
    points = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert points == [[[0, 50], [0, 75]], [[0, 62.5]], [[1, 25]], [[1, 25]]]


def test_scores_of_any_metric_have_plain_numbers() -> None:
    figure = charts.scores({"32-true": [1.2e-5, 1.3e-5]}, "val_loss", PRECISIONS, is_share=False)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_ylabel() == "val_loss"
    assert all(label.startswith("0.00001") for label in shown(axes, "y"))
    assert axes.yaxis.get_offset_text().get_text() == ""


def test_losses() -> None:
    axes = charts.losses({"32-true": [(1, 2.3), (2, 1.5)], "bf16-mixed": [(1, 2.4)]}, PRECISIONS).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("optimizer step", "training loss", "log")
    assert lines(axes) == {"32-true": [(1, 2.3), (2, 1.5)], "bf16-mixed": [(1, 2.4)]}
    assert shown(axes, "y") == ["1", "2", "5"]


def test_losses_that_have_no_logarithm() -> None:
    curves = {"32-true": [(1, 2.3), (2, -1.5), (3, float("nan"))], "bf16-mixed": [(1, float("inf"))]}
    axes = charts.losses(curves, PRECISIONS).axes[0]
    assert axes.get_yscale() == "linear"
    assert lines(axes) == {"32-true": [(1, 2.3), (2, -1.5)]}


def test_shares() -> None:
    axes = charts.shares({"forward": 0.25, "the loop itself": 0.75}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["forward", "the loop itself"]
    assert [text.get_text() for text in axes.texts] == ["25.0%", "75.0%"]
    assert axes.yaxis_inverted()
    assert axes.get_title() == "Where the time of a training step goes"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("% of the step's time", "part of the step")


def test_gradient_histogram() -> None:
    axes = charts.gradient_histogram({-20: 30, -3: 10}).axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches[:2]]  # type: ignore[attr-defined]
    assert bars == [(-20, 1, 75), (-3, 1, 25)]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "fp16 subnormal (fewer bits): $2^{-24}$ to $2^{-14}$",
        "fp16 normal: $2^{-14}$ to 65504",
        "bfloat16 and float32 normal: from $2^{-126}$",
    ]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [-126, -126]


def test_gradient_histogram_when_all_gradients_are_zero() -> None:
    assert len(charts.gradient_histogram({}).axes) == 1


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(charts).failed == 0
