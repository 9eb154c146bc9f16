import doctest
from collections.abc import Sequence

import pytest
from matplotlib.axes import Axes

from mnist_amp.reporting import chart_style
from mnist_amp.reporting.chart_style import colours, log_ticks, new_figure, plain_number, positions, value_ticks


def shown(axes: Axes, name: str) -> list[str]:
    """Return the labels of the ticks within the limits of an axis."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label.get_text() for at, label in labels if low <= at <= high]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], ["0.5", "1", "2"]),  # a single value
        ([3.3], ["2", "5", "10"]),
        ([1.0, 1.1], ["0.5", "1", "2"]),
        ([0.0234, 0.0236], ["0.01", "0.02", "0.05"]),
        ([1.0, 10.0], ["1", "2", "5", "10"]),
        ([2.0, 2000.0], ["2", "5", "10", "20", "50", "100", "200", "500", "1,000", "2,000"]),
        ([1e-7, 1e-6], ["0.0000001", "0.0000002", "0.0000005", "0.000001"]),
        ([1e-3, 1e5], ["0.001", "0.01", "0.1", "1", "10", "100", "1,000", "10,000", "100,000"]),
        ([float("nan"), float("inf"), -1.0, 0.0, 1.0], ["0.5", "1", "2"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(values: list[float], expected: list[str]) -> None:
    axes = new_figure(4, 4).subplots()
    log_ticks(axes, "y", values)
    assert axes.get_yscale() == "log"
    assert shown(axes, "y") == expected
    assert len(axes.yaxis.get_minorticklocs()) == 0


def test_many_powers_of_ten_have_at_most_twelve_ticks() -> None:
    axes = new_figure(4, 4).subplots()
    log_ticks(axes, "x", [1e-20, 1e20])
    assert 3 <= len(shown(axes, "x")) <= 12


def test_an_axis_without_a_positive_value_stays_linear() -> None:
    axes = new_figure(4, 4).subplots()
    log_ticks(axes, "y", [0.0, -1.0])
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([64], ["64"]),
        ([64, 65, 512], ["64", "", "512"]),
        ([8, 4095, 4096], ["8", "", "4,096"]),
        ([0.001, 1e-05], ["0.00001", "0.001"]),
        ([0.9, 0.0], ["0", "0.9"]),
        ([16, 32, 64, 128, 256, 512], ["16", "32", "64", "128", "256", "512"]),
        (["true", "false"], ["true", "false"]),
        (["Adam", 64], ["Adam", "64"]),
        (["my_package.optimizers.MyAdam"], ["my_packag...s.MyAdam"]),
    ],
)
def test_ticks_of_values(values: Sequence[float | str], expected: list[str]) -> None:
    axes = new_figure(4, 4).subplots()
    value_ticks(axes, positions(values), 3.2)
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    is_log = all(isinstance(value, int | float) and value > 0 for value in values)
    assert axes.get_xscale() == ("log" if is_log else "linear")
    low, high = axes.get_xlim()
    assert all(low < place < high for place in positions(values).values())


def test_long_texts_stand_upright() -> None:
    axes = new_figure(4, 4).subplots()
    value_ticks(axes, positions(["lightning.Adam", "lightning.AdamW", "lightning.SGD"]), 3.2)
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}


def test_of_many_texts_some_are_named() -> None:
    axes = new_figure(4, 4).subplots()
    value_ticks(axes, positions([f"v{index}" for index in range(60)]), 3.2)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert [label for label in labels if label] == [f"v{index}" for index in range(0, 60, 3)]


def test_a_name_has_its_colour_by_its_position() -> None:
    names = [f"n{index}" for index in range(11)]
    assert list(colours(names).values()) == [f"C{index}" for index in range(10)] + ["C0"]


def test_plain_numbers() -> None:
    assert [plain_number(value) for value in (0, 1, -0.25, 1e-3, 1e9, 1e12)] == [
        *("0", "1", "-0.25", "0.001", "1,000,000,000", "1e+12"),
    ]


def test_the_examples_of_the_docstrings() -> None:
    results = doctest.testmod(chart_style)
    assert (results.failed, results.attempted) == (0, 5)
