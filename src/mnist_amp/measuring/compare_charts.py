"""The charts of `mnist-amp compare`, from its records; no torch here, and matplotlib only when a chart is drawn."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mnist_amp.measuring.compare_records import Comparison, Score, Setting, is_number, short_names, value_text
from mnist_amp.measuring.compare_rows import Row, crossover_along, rows, scores
from mnist_amp.reporting import charts
from mnist_amp.wording import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 6


class Drawing(NamedTuple):
    """A chart that is not drawn yet.

    Attributes:
        title: what it shows.
        draw: returns the chart.
    """

    title: str
    draw: Callable[[], "Figure"]


class Panels(NamedTuple):
    """The panels of a chart: one for each setting of the axes that are not its horizontal axis.

    Attributes:
        axis: the horizontal axis; None for the precisions.
        settings: of the other axes, at most six.
        title: of the chart.
    """

    axis: str | None
    settings: list[Setting]
    title: str


def time_charts(comparison: Comparison) -> dict[str, Drawing]:
    """Return a chart of the time of a step for each axis that has at least two values, by the name of its file.

    A comparison without such an axis has one chart with the precisions on its horizontal axis.
    """
    measured = [row for row in rows(comparison) if row.seconds]
    if not measured:
        return {}
    found, names = {}, short_names(comparison.axes)
    several = [axis for axis, values in comparison.axes.items() if len(values) > 1]
    for panels in [_panels("Time of a step", axis, measured, comparison) for axis in several or (None,)]:
        name = "time.png" if panels.axis is None else f"time-{names[panels.axis]}.png"
        found[name] = Drawing(panels.title, functools.partial(_draw_times, panels, measured, comparison))
    return found


def memory_charts(comparison: Comparison) -> dict[str, Drawing]:
    """Return the chart of memory by the last axis that has at least two values; none if no memory was measured."""
    measured = [row for row in rows(comparison) if row.memory]
    if not measured:
        return {}
    panels = _panels("Memory", memory_axis(comparison.axes), measured, comparison)
    return {"memory.png": Drawing(panels.title, lambda: _draw_memory(panels, measured, comparison))}


def score_charts(comparison: Comparison) -> dict[str, Drawing]:
    """Return the charts of the metric and of the training loss; those that were not measured are left out."""
    found, metric = {}, comparison.metric
    if values := scores(comparison):
        found["metric.png"] = Drawing(
            f"{metric.name} by seed",
            lambda: charts.scores(values, metric.name, comparison.precisions, metric.is_share),
        )
    if curves := _first_curves(comparison):
        found["loss.png"] = Drawing("Training loss", lambda: charts.losses(curves, comparison.precisions))
    return found


def memory_axis(axes: Mapping[str, list[Any]]) -> str | None:
    """Return the last axis with at least two values, if possible one of numbers; None if no axis has two values.

    >>> memory_axis({"network.width": [16, 64], "optimizer.fused": [True, False], "data.batch_size": [32]})
    'network.width'
    """
    several = [axis for axis, values in axes.items() if len(values) > 1]
    numbers = [axis for axis in several if all(map(is_number, axes[axis]))]
    return next(reversed(numbers or several), None)


def _panels(what: str, axis: str | None, measured: list[Row], comparison: Comparison) -> Panels:
    """Choose at most six settings of the other axes: those that are most like the setting of the run."""
    own = _fixed(comparison.own, axis)
    known = list(dict.fromkeys(_fixed(row.setting, axis) for row in measured))
    nearest = sorted(known, key=lambda setting: sum(pair not in own.values for pair in setting.values))[:MOST_PANELS]
    shown = [setting for setting in known if setting in nearest]
    names = short_names(comparison.axes)
    title = f"{what} by {'precision' if axis is None else names[axis]}"
    fixed = listed([name for other, name in names.items() if other != axis])
    if fixed and len(known) == 1:
        title += f", with {known[0]}"
    elif fixed:
        title += f", with {fixed} fixed in each panel"
    if len(shown) < len(known):
        title += f" ({len(shown)} of {len(known)} combinations)"
    return Panels(axis, shown, title)


def _fixed(setting: Setting, axis: str | None) -> Setting:
    return setting if axis is None else setting.without(axis)


def _draw_times(panels: Panels, measured: list[Row], comparison: Comparison) -> "Figure":
    """Draw the times, and the value of the axis from which on a precision is faster with the values of the others."""
    axis, shown = panels.axis, _shown(panels, measured)
    points = [charts.TimePoint(_panel(panels, row), row.precision, _drawn(row, axis), row.seconds) for row in shown]
    starts = {}
    if axis is not None and all(is_number(row.setting[axis]) for row in measured):
        starts = {(_panel(panels, row), row.precision): crossover_along(axis, row, measured) for row in shown}
    known = {key: start for key, start in starts.items() if start is not None}
    return charts.times(points, known, _label(axis, comparison), comparison.precisions, panels.title)


def _draw_memory(panels: Panels, measured: list[Row], comparison: Comparison) -> "Figure":
    points = [
        charts.MemoryPoint(_panel(panels, row), row.precision, _drawn(row, panels.axis), row.memory.total)
        for row in _shown(panels, measured)
        if row.memory
    ]
    return charts.memory(points, _label(panels.axis, comparison), comparison.precisions, panels.title)


def _shown(panels: Panels, measured: list[Row]) -> list[Row]:
    return [row for row in measured if _fixed(row.setting, panels.axis) in panels.settings]


def _panel(panels: Panels, row: Row) -> str:
    """Return the title of a row's panel; empty if the title of the chart names the setting already."""
    return "" if len(panels.settings) == 1 else str(_fixed(row.setting, panels.axis))


def _label(axis: str | None, comparison: Comparison) -> str:
    return "precision" if axis is None else short_names(comparison.axes)[axis]


def _drawn(row: Row, axis: str | None) -> float | str:
    """Return the value of a row as charts take it: a number, or text."""
    if axis is None:
        return row.precision
    value: Any = row.setting[axis]
    return value if is_number(value) else value_text(value)


def _first_curves(comparison: Comparison) -> dict[str, list[tuple[float, float]]]:
    """Return the loss curve of each precision with its first seed, without those that are empty."""
    curves = {cell.precision: outcome.curve for cell, outcome in reversed(comparison.outcomes(Score))}
    return {name: curves[name] for name in comparison.precisions if curves.get(name)}
