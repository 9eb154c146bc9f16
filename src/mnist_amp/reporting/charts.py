"""The charts of `mnist-amp compare` and `mnist-amp profile`. Each function returns a figure, to be saved by the caller.

Without torch; matplotlib is imported only when a chart is drawn.

Examples:
    >>> points = [TimePoint("", "32-true", 64, [0.001]), TimePoint("", "32-true", 512, [0.004])]
    >>> figure = times(points, {}, "batch_size", ["32-true"])
    >>> figure.axes[0].get_ylabel()
    'time of a step, ms'
"""

import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mnist_amp.reporting.chart_style import (
    PER_INCH,
    Style,
    colours,
    line_styles,
    log_ticks,
    new_figure,
    plain_ticks,
    positions,
    value_ticks,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # in a row
TIME_WIDTH, MEMORY_WIDTH, SIDE = 4.0, 3.2, 0.8  # inches of a panel, and of what stands left of its axis


class TimePoint(NamedTuple):
    """The time of a training step.

    Attributes:
        panel: title of the panel that it is drawn in; may be empty.
        precision: that the step ran in.
        x: the value that changes within the panel; a number, or text.
        seconds: in each round.
    """

    panel: str
    precision: str
    x: float | str
    seconds: Sequence[float]


class MemoryPoint(NamedTuple):
    """The memory of a training step in bytes; `panel`, `precision` and `x` as in `TimePoint`."""

    panel: str
    precision: str
    x: float | str
    bytes: int


def times(
    points: Sequence[TimePoint],
    starts: Mapping[tuple[str, str], float],
    xlabel: str,
    precisions: Sequence[str],
    title: str = "",
) -> "Figure":
    """Return a chart of the time of a step by the value of an axis, in milliseconds, with a panel for each setting.

    The line is the median of the rounds, the band goes from the fastest round to the slowest.

    Args:
        points: at least one. If a value is text, all values are drawn at equal distances, in the order in which they
            come first. With the precision as the value, each precision is a point, and there is no legend.
        starts: the value from which on a precision is faster, by panel and precision; drawn as a dashed line.
        xlabel: name of the axis.
        precisions: all of the comparison, in its order; it determines their colours.
        title: of the chart.
    """
    places = positions(point.x for point in points)
    figure, panels = _panels([point.panel for point in points], TIME_WIDTH, title)
    for panel, axes in panels.items():
        shown = [point for point in points if point.panel == panel]
        for precision, style in line_styles(precisions).items():
            if line := [point for point in shown if point.precision == precision]:
                _draw_times(axes, line, places, style)
                _draw_start(axes, [places[point.x] for point in line], starts.get((panel, precision)), style.colour)
        log_ticks(axes, "y", [1e3 * seconds for point in shown for seconds in point.seconds])
        axes.set(xlabel=xlabel, ylabel="time of a step, ms")
        _set_title(axes, panel, TIME_WIDTH)
        value_ticks(axes, places, TIME_WIDTH - SIDE)
        axes.grid(alpha=0.3)
    if any(point.x != point.precision for point in points):  # else the precisions are named at the axis
        _legend(figure)
    return figure


def _draw_times(axes: "Axes", line: list[TimePoint], places: Mapping[float | str, float], style: Style) -> None:
    line = sorted(line, key=lambda point: places[point.x])
    x = [places[point.x] for point in line]
    rounds = [sorted(1e3 * seconds for seconds in point.seconds) for point in line]
    medians, colour = list(map(statistics.median, rounds)), style.colour
    axes.plot(x, medians, marker="o", color=colour, linestyle=style.dashes, label=line[0].precision)
    lows, highs = [found[0] for found in rounds], [found[-1] for found in rounds]
    axes.fill_between(x, lows, highs, color=colour, alpha=0.2)
    if len(x) == 1:  # a band of no width is not seen
        axes.vlines(x, lows, highs, color=colour, alpha=0.4, linewidth=4)


def _draw_start(axes: "Axes", x: Sequence[float], start: float | None, colour: str) -> None:
    if start is not None and min(x) < start <= max(x):
        axes.axvline(start, color=colour, linestyle="--", alpha=0.6)


def memory(points: Sequence[MemoryPoint], xlabel: str, precisions: Sequence[str], title: str = "") -> "Figure":
    """Return a chart of the memory of a step by the value of an axis, in MB, with a panel for each setting.

    Args:
        points: at least one.
        xlabel: name of the axis.
        precisions: all of the comparison, in its order; it determines their colours.
        title: of the chart.
    """
    places = positions(point.x for point in points)
    figure, panels = _panels([point.panel for point in points], MEMORY_WIDTH, title)
    for panel, axes in panels.items():
        shown = [point for point in points if point.panel == panel]
        for precision, style in line_styles(precisions).items():
            line = sorted((places[point.x], point.bytes / 1e6) for point in shown if point.precision == precision)
            if line:
                x, sizes = zip(*line, strict=True)
                axes.plot(x, sizes, marker="o", color=style.colour, linestyle=style.dashes, label=precision)
        axes.set(xlabel=xlabel, ylabel="memory, MB")
        _set_title(axes, panel, MEMORY_WIDTH)
        axes.set_ylim(0, 1.1 * max(point.bytes / 1e6 for point in shown))
        plain_ticks(axes, "y")
        value_ticks(axes, places, MEMORY_WIDTH - SIDE)
        axes.grid(alpha=0.3)
    if any(point.x != point.precision for point in points):
        _legend(figure)
    return figure


def _panels(titles: Iterable[str], width: float, title: str) -> "tuple[Figure, dict[str, Axes]]":
    """Make a figure with a panel for each title, at most four in a row."""
    known = list(dict.fromkeys(titles))
    columns = min(len(known), PANELS)
    rows = -(-len(known) // columns)
    figure = new_figure(width * columns + 1.0, 3.6 * rows + (0.8 if title else 0.4))
    if title:
        figure.suptitle(textwrap.fill(title, int(PER_INCH * figure.get_figwidth())), fontsize=10, parse_math=False)
    return figure, {name: figure.add_subplot(rows, columns, place + 1) for place, name in enumerate(known)}


def _set_title(axes: "Axes", text: str, width: float) -> None:
    axes.set_title(textwrap.fill(text, int(PER_INCH * width)), fontsize=10, parse_math=False)


def _legend(figure: "Figure") -> None:
    """Draw one legend for all panels, below them."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    columns = max(1, min(len(found), int(figure.get_figwidth() // 1.6)))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def scores(values: Mapping[str, Sequence[float]], metric: str, precisions: Sequence[str], is_share: bool) -> "Figure":
    """Return a chart of a metric: a point for each seed, and their mean as a dash, by precision.

    Args:
        values: of the metric, by precision.
        metric: its name.
        precisions: all of the comparison, in its order; it determines their colours.
        is_share: whether the values are shares (0 to 1), which are drawn in percent.
    """
    figure = new_figure(1.6 * len(values) + 3.0, 3.8)
    axes = figure.subplots()
    scale, colour_of = 100 if is_share else 1, colours(precisions)
    for position, (precision, found) in enumerate(values.items()):
        axes.plot(
            [position] * len(found), [scale * score for score in found], "o", color=colour_of[precision], alpha=0.6
        )
        axes.plot(position, scale * sum(found) / len(found), "_k", markersize=24)
    axes.set_xlabel("precision")
    axes.set_ylabel(f"{metric}, %" if is_share else metric, parse_math=False)
    value_ticks(axes, positions(values), 1.6 * len(values) + 3.0 - SIDE)
    plain_ticks(axes, "y")
    axes.grid(alpha=0.3)
    return figure


def losses(curves: Mapping[str, Sequence[Sequence[float]]], precisions: Sequence[str]) -> "Figure":
    """Return a chart of the training loss by optimizer step.

    The scale is logarithmic if all losses are above 0. Losses that are not finite are left out.

    Args:
        curves: points (step, loss) by precision.
        precisions: all of the comparison, in its order; it determines their colours.
    """
    figure = new_figure(7.0, 3.8)
    axes = figure.subplots()
    styles = line_styles(precisions)
    drawn = {name: [point for point in points if math.isfinite(point[1])] for name, points in curves.items()}
    for precision, points in drawn.items():
        if points:
            marker, style = "o" if len(points) == 1 else None, styles[precision]  # a line of one point is not seen
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker=marker, color=style.colour, linestyle=style.dashes, label=precision)
    axes.set(xlabel="optimizer step", ylabel="training loss")
    found = [loss for points in drawn.values() for _, loss in points]
    if all(loss > 0 for loss in found):
        log_ticks(axes, "y", found)
    else:
        plain_ticks(axes, "y")
    plain_ticks(axes, "x")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def shares(parts: Mapping[str, float]) -> "Figure":
    """Return a chart of the shares (0 to 1) of the parts of a training step, the first part on top."""
    figure = new_figure(7.0, 3.6)
    axes = figure.subplots()
    bars = axes.barh(list(parts), [100 * share for share in parts.values()], color="C0")
    axes.bar_label(bars, fmt="%.1f%%", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="% of the step's time", ylabel="part of the step", title="Where the time of a training step goes")
    return figure


def gradient_histogram(exponents: Mapping[int, int]) -> "Figure":
    """Return a chart of the magnitudes of gradient values against the ranges of fp16 and bfloat16.

    Args:
        exponents: for each exponent e, the number of values from 2^e to 2^(e+1).
    """
    total = sum(exponents.values())
    figure = new_figure(8.0, 3.8)
    axes = figure.subplots()
    heights = [100 * count / total for count in exponents.values()]
    axes.bar(list(exponents), heights, width=1, align="edge", color="C0", zorder=2)
    axes.axvspan(-24, -14, color="C1", alpha=0.15, label="fp16 subnormal (fewer bits): $2^{-24}$ to $2^{-14}$")
    axes.axvspan(-14, math.log2(65504), color="C1", alpha=0.35, label="fp16 normal: $2^{-14}$ to 65504")
    axes.axvline(-126, color="C2", label="bfloat16 and float32 normal: from $2^{-126}$")
    axes.set(xlabel="magnitude as a power of two", ylabel="% of the gradient values", xlim=(-130, 20))
    axes.legend(loc="upper left", bbox_to_anchor=(0.05, 1))
    return figure
