"""The style of all plots: a figure without a display, a colour for each name, and legible ticks. Without torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple

from mnist_amp.reporting.class_names import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = 10  # of matplotlib's cycle, C0 to C9
DASHES = ("-", "--", ":", "-.")
LEAST_TICKS, MOST_TICKS = 3, 12  # of a logarithmic axis
MARGIN = 1.1  # a factor beyond the first and the last value of a logarithmic axis
PER_INCH = 11.0  # characters of a label
GAP = 0.1  # inches between two labels
TEXT_LABEL = 20  # characters of a label that is text
TEXT_LABELS = 25  # that fit side by side when they stand upright


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches.

    It is not made by pyplot, which keeps every figure in memory and may look for a display.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name, by its position, so that a name has the same colour in all charts.

    >>> colours(["32-true", "bf16-mixed"])
    {'32-true': 'C0', 'bf16-mixed': 'C1'}
    """
    return {name: f"C{index % COLOURS}" for index, name in enumerate(names)}


class Style(NamedTuple):
    """How a line is drawn. The dashes show a line that lies on another one, and replace colours that look alike."""

    colour: str
    dashes: str


def line_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return the style of the line of each name, by its position, see `colours`.

    >>> line_styles(["32-true"])
    {'32-true': Style(colour='C0', dashes='-')}
    """
    found = colours(names)
    return {name: Style(colour, DASHES[index % len(DASHES)]) for index, (name, colour) in enumerate(found.items())}


def plain_number(value: float) -> str:
    """Return a number without an exponent, except for one that would be too long.

    >>> [plain_number(value) for value in (64, 2048.0, 0.1 + 0.2, 1e-05, 1.5e-12)]
    ['64', '2,048', '0.3', '0.00001', '1.5e-12']
    """
    value = float(f"{value:.10g}")
    if value and not 1e-7 <= abs(value) < 1e12:
        return f"{value:.3g}"
    text = f"{Decimal(repr(value)):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def log_ticks(axes: "Axes", name: Literal["x", "y"], values: Iterable[float]) -> None:
    """Make an axis logarithmic, with ticks at 1, 2 and 5 times powers of ten, in plain numbers.

    The axis is made longer if there would be fewer than three ticks. Over more than four powers of ten, only these
    have ticks. Values that are not finite or not above 0 are ignored; if no value is left, the axis stays linear.

    Args:
        axes: whose axis it is.
        name: of the axis.
        values: that are drawn.

    Examples:
        >>> log_ticks(axes, "y", [1.0, 1.1])  # doctest: +SKIP
        >>> [label.get_text() for label in axes.get_yticklabels()]  # doctest: +SKIP
        ['0.5', '1', '2']
    """
    from matplotlib.ticker import NullLocator

    drawn = [value for value in values if math.isfinite(value) and value > 0]
    if not drawn:
        return
    low, high, ticks = _limits_and_ticks(min(drawn), max(drawn))
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_ticks(ticks, [plain_number(tick) for tick in ticks])
    axis.set_minor_locator(NullLocator())


def _limits_and_ticks(least: float, most: float) -> tuple[float, float, list[float]]:
    """Return limits around the values that have at least three ticks between them, and at most twelve ticks."""
    low, high = least / MARGIN, most * MARGIN
    while len(ticks := _one_two_five(low, high)) < LEAST_TICKS:
        below, above = _one_two_five(low / 10, low)[-1], _one_two_five(high, high * 10)[0]
        if least / below <= above / most:  # the values stay in the middle
            low = below / MARGIN
        else:
            high = above * MARGIN
    if len(ticks) > MOST_TICKS:
        powers = [tick for tick in ticks if f"{tick:e}".startswith("1.")]
        ticks = powers[:: -(-len(powers) // MOST_TICKS)]
    return low, high, ticks


def _one_two_five(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten between two positive numbers.

    >>> _one_two_five(0.4, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def plain_ticks(axes: "Axes", name: Literal["x", "y"]) -> None:
    """Write the numbers of a linear axis without an exponent, and without an offset beside the axis."""
    from matplotlib.ticker import FuncFormatter

    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def positions(values: Iterable[float | str]) -> dict[float | str, float]:
    """Return where each value stands on an axis: numbers at their own place, others one after the other.

    >>> positions([64, 8]), positions(["true", "false"])
    ({8: 8.0, 64: 64.0}, {'true': 0.0, 'false': 1.0})
    """
    known = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in known):
        return {value: float(value) for value in sorted(known, key=float)}
    return {value: float(index) for index, value in enumerate(known)}


def value_ticks(axes: "Axes", places: Mapping[float | str, float], width: float) -> None:
    """Mark the values on a horizontal axis; numbers above 0 stand on a logarithmic scale.

    A label of a number is left out if it would touch the label before it. Labels that are text are shortened, and they
    stand upright if they are too long to stand side by side.

    Args:
        axes: whose horizontal axis it is.
        places: of the values, see `positions`.
        width: of the axis in inches.
    """
    from matplotlib.ticker import NullLocator

    if all(isinstance(value, int | float) for value in places):
        _number_ticks(axes, list(places.values()), width)
    else:
        _text_ticks(axes, list(map(str, places)), width)
    axes.xaxis.set_minor_locator(NullLocator())


def _number_ticks(axes: "Axes", values: Sequence[float], width: float) -> None:
    labels = [plain_number(value) for value in values]
    if values[0] > 0:
        logs = [math.log10(value) for value in values]
        room = max(0.05 * (logs[-1] - logs[0]), 0.05)
        axes.set(xscale="log", xlim=(10 ** (logs[0] - room), 10 ** (logs[-1] + room)))
    else:
        logs = list(values)
        room = 0.05 * (logs[-1] - logs[0]) or 1.0
        axes.set_xlim(logs[0] - room, logs[-1] + room)
    inches = [width * (place - logs[0] + room) / (logs[-1] - logs[0] + 2 * room) for place in logs]
    axes.set_xticks(values, _without_overlaps(labels, inches))


def _without_overlaps(labels: Sequence[str], inches: Sequence[float]) -> list[str]:
    """Return the labels with an empty text for those that would touch another one; the first and the last stay."""
    halves = [len(label) / PER_INCH / 2 for label in labels]
    last = len(labels) - 1
    end, kept = -math.inf, []
    for index, (label, at, half) in enumerate(zip(labels, inches, halves, strict=True)):
        before_last = inches[last] - halves[last] - GAP if index < last else math.inf
        fits = at - half >= end + GAP and at + half <= before_last
        if fits or index in (0, last):
            end = at + half
        kept.append(label if fits or index in (0, last) else "")
    return kept


def _text_ticks(axes: "Axes", names: Sequence[str], width: float) -> None:
    step = -(-len(names) // TEXT_LABELS)
    labels = [shortened(name, TEXT_LABEL) if index % step == 0 else "" for index, name in enumerate(names)]
    upright = (max(map(len, labels)) / PER_INCH + GAP) * len(labels) > width
    axes.set_xticks(range(len(names)), labels, rotation=90 if upright else 0, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
