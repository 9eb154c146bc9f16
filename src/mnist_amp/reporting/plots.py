"""The plots. Without torch; matplotlib is imported only when a plot is drawn."""

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_amp.reporting.class_names import shortened, unique_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MISTAKES = 25  # a grid of 5 x 5
MAX_NUMBERED, MAX_NAMED = 20, 30  # classes of a confusion matrix with numbers in its cells, and with all names
MAX_PAIRS, PAIRS_WIDTH = 15, 3.2  # the list of confused classes beside it, in lines and inches
TICK_NAME, MAX_HORIZONTAL = 20, 40  # characters of a name at an axis, and of all of them in a horizontal line
TITLE = 22  # characters of a line above a misclassified image
MAX_MARKED = 30  # a curve of as many points or more is drawn without a marker at each point


class Mistake(NamedTuple):
    """A misclassified image.

    Attributes:
        image: (H, W) or (H, W, 3) uint8.
        true_class: name of the class of the image.
        predicted_class: name of the most probable class, according to the model.
        probability: of the predicted class, 0 to 1.
    """

    image: NDArray[np.uint8]
    true_class: str
    predicted_class: str
    probability: float


class TimePoint(NamedTuple):
    """The time of a training step: seconds by round.

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


def curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and the accuracy by epoch.

    Args:
        history: a row for each epoch with `epoch` (from 0), `train_loss` and `train_accuracy`; with `val_loss` and
            `val_accuracy` if it had a validation.
        path: file to write.
    """
    figure = _figure(9.0, 3.6)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, label, style in (("train", "training", "o-"), ("val", "validation", "s--")):
            key = f"{prefix}_{metric}"
            points = [(row["epoch"] + 1, row[key]) for row in history if key in row]
            if points:
                style = style if len(points) < MAX_MARKED else style.strip("os")
                axes.plot(*zip(*points, strict=True), style, label=label)
        axes.set(xlabel="epochs trained", title=metric, xlim=(0.5, len(history) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def confusion_matrix(matrix: list[list[int]], path: Path, classes: Sequence[str]) -> None:
    """Draw a confusion matrix. The shade of a cell is its share of the images of its row.

    Up to 20 classes have numbers in the cells, and up to 30 have all their names at the axes. Of more classes, about 25
    are named there. Where there are no numbers, the most confused classes are listed beside the matrix.

    Args:
        matrix: number of images by true class (row) and predicted class (column).
        path: file to write.
        classes: the name of each class, in the order of the rows.

    Example: 3 images of cats, of which 2 are classified correctly, and 4 of dogs.

        plots.confusion_matrix([[2, 1], [0, 4]], Path("confusion_matrix.png"), ["cat", "dog"])
    """
    from matplotlib.colors import PowerNorm

    counts, names = np.array(matrix), unique_names(classes)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure, axes = _matrix_axes(counts, names)
    # so that a few mistakes can be seen
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, vmin=0, vmax=1), interpolation="nearest")
    axes.set_aspect(
        "equal" if len(names) <= MAX_NUMBERED else "auto"
    )  # the layout fails with a fixed aspect and a list
    if len(names) <= MAX_NUMBERED:
        for true, predicted in np.ndindex(counts.shape):
            color = "white" if shares[true, predicted] > 0.5 else "black"
            axes.text(predicted, true, str(counts[true, predicted]), ha="center", va="center", color=color, fontsize=8)
    _class_ticks(axes, [shortened(name, TICK_NAME) for name in names])
    axes.set_title(f"{counts.trace():,} of {counts.sum():,} images correct")
    _save(figure, path)


def most_confused(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the cells of a confusion matrix with the most mistakes, as (true class, predicted class), at most 15."""
    mistakes = counts - np.diag(counts.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MAX_PAIRS]
    cells = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [(int(true), int(predicted)) for true, predicted in cells if mistakes[true, predicted]]


def _matrix_axes(counts: NDArray[np.int64], names: list[str]) -> tuple["Figure", "Axes"]:
    """Return a figure and the axes of the matrix; the list of the most confused classes is already drawn beside it."""
    longest = min(max(map(len, names)), TICK_NAME)
    side = 5.6 + 0.28 * (min(len(names), MAX_NAMED) - 10) * (len(names) > 10) + 0.06 * max(longest - 3, 0)
    if len(names) <= MAX_NUMBERED:
        figure = _figure(side + 0.4, side)
        return figure, figure.subplots()
    figure = _figure(side + PAIRS_WIDTH, side)
    share = side / (side + PAIRS_WIDTH)
    figure.set_layout_engine("constrained", rect=(0, 0, share, 1))  # the rest is for the list
    pairs = [
        f"{shortened(names[true], 18)} → {shortened(names[predicted], 18)}: {counts[true, predicted]:,}"
        for true, predicted in most_confused(counts)
    ]
    text = "\n".join(["Most confused, true → predicted: images", "", *(pairs or ["none"])])
    figure.text(share + 0.01, 0.96, text, va="top", fontsize=8, linespacing=1.6, parse_math=False)
    return figure, figure.subplots()


def _class_ticks(axes: "Axes", names: list[str]) -> None:
    step = 1 if len(names) <= MAX_NAMED else -(-len(names) // 25)
    ticks, named = list(range(0, len(names), step)), names[::step]
    rotation = 0 if len(names) * max(map(len, names)) <= MAX_HORIZONTAL else 90
    size = 8 if len(names) > 10 or rotation else 10
    axes.set_xticks(ticks, named, parse_math=False, rotation=rotation, fontsize=size)
    axes.set_yticks(ticks, named, parse_math=False, fontsize=size)
    of_all = f" (1 in {step} is named)" if step > 1 else ""
    axes.set(xlabel=f"predicted class{of_all}", ylabel=f"true class{of_all}")


def misclassified(mistakes: list[Mistake], path: Path) -> None:
    """Draw up to 25 mistakes, in the given order."""
    figure = _figure(7.5, 8.0)
    title = "Most confident mistakes: true class → predicted class (probability)"
    figure.suptitle(title if mistakes else "No mistakes")
    for index, mistake in enumerate(mistakes[:MAX_MISTAKES]):
        axes = figure.add_subplot(5, 5, index + 1)
        axes.imshow(mistake.image, cmap="gray", vmin=0, vmax=255)
        text = f"{mistake.true_class} → {mistake.predicted_class} ({mistake.probability:.1%})"
        if len(text) > TITLE:
            true, predicted = shortened(mistake.true_class, TITLE), shortened(mistake.predicted_class, TITLE - 2)
            text = f"{true}\n→ {predicted}\n({mistake.probability:.1%})"
        axes.set_title(text, fontsize=9 if len(text) <= TITLE else 8, parse_math=False)
        axes.axis("off")
    _save(figure, path)


def times(
    points: Iterable[tuple[str, str, float | str, Sequence[float]]],
    starts: Mapping[tuple[str, str], float],
    xlabel: str,
    path: Path,
) -> None:
    """Draw the time of a step by the value of an axis, with a panel for each setting of the other axes.

    The line is the median of the rounds, the band goes from the fastest round to the slowest.

    Args:
        points: a `TimePoint` for each measurement, or a plain tuple of its fields. If a value is text, all values are
            drawn at equal distances, in the order in which they come first.
        starts: the value from which on a precision is faster, by panel and precision; drawn as a dashed line.
        xlabel: name of the axis.
        path: file to write.
    """
    named = [TimePoint(*point) for point in points]
    places = _places([point.x for point in named])
    figure, panels = _panels([point.panel for point in named], 4.0)
    for panel, axes in panels.items():
        for precision in dict.fromkeys(point.precision for point in named):
            line = [point for point in named if (point.panel, point.precision) == (panel, precision)]
            if line:
                _draw_times(axes, line, places, starts.get((panel, precision), 0))
        axes.set(yscale="log", xlabel=xlabel, ylabel="ms per step", title=panel)
        _value_ticks(axes, places)
    figure.savefig(path)


def _draw_times(axes: "Axes", line: list[TimePoint], places: Mapping[float | str, float], start: float) -> None:
    line = sorted(line, key=lambda point: places[point.x])
    x = [places[point.x] for point in line]
    milliseconds = [1e3 * np.array(point.seconds) for point in line]
    (drawn,) = axes.plot(x, [float(np.median(rounds)) for rounds in milliseconds], "o-", label=line[0].precision)
    axes.fill_between(x, [rounds.min() for rounds in milliseconds], [r.max() for r in milliseconds], alpha=0.2)
    if x[0] < start <= x[-1]:
        axes.axvline(start, color=drawn.get_color(), linestyle="--", alpha=0.6)


def memory(points: Iterable[tuple[str, str, float | str, int]], xlabel: str, path: Path) -> None:
    """Draw the memory of a step by the value of an axis, with a panel for each setting of the other axes.

    Args:
        points: a `MemoryPoint` for each measurement, or a plain tuple of its fields.
        xlabel: name of the axis.
        path: file to write.
    """
    named = [MemoryPoint(*point) for point in points]
    places = _places([point.x for point in named])
    figure, panels = _panels([point.panel for point in named], 3.2)
    for panel, axes in panels.items():
        shown = [point for point in named if point.panel == panel]
        for precision in dict.fromkeys(point.precision for point in named):
            line = sorted((places[point.x], point.bytes / 1e6) for point in shown if point.precision == precision)
            if line:
                axes.plot(*zip(*line, strict=True), "o-", label=precision)
        axes.set(xlabel=xlabel, ylabel="memory, MB", title=panel)
        axes.set_ylim(0, 1.1 * max(point.bytes / 1e6 for point in shown))
        _value_ticks(axes, places)
    figure.savefig(path)


def _places(values: Iterable[float | str]) -> dict[float | str, float]:
    """Return where each value is drawn: numbers at their own place, others one after the other."""
    known = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in known):
        return {value: float(value) for value in sorted(known, key=float)}
    return {value: float(index) for index, value in enumerate(known)}


def _panels(titles: Iterable[str], width: float) -> "tuple[Figure, dict[str, Axes]]":
    """Make a figure with a panel for each title, at most four in a row."""
    known = list(dict.fromkeys(titles))
    columns = max(min(len(known), 4), 1)
    rows = max(-(-len(known) // columns), 1)
    figure = _figure(width * columns + 1.0, 3.8 * rows)
    return figure, {title: figure.add_subplot(rows, columns, place + 1) for place, title in enumerate(known)}


def _value_ticks(axes: "Axes", places: Mapping[float | str, float]) -> None:
    """Mark the values on the horizontal axis; numbers above 0 stand on a logarithmic scale."""
    numbers = [value for value in places if isinstance(value, int | float)]
    if len(numbers) < len(places):
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif min(numbers, default=0) > 0:
        axes.set_xscale("log")
    axes.set_xticks(list(places.values()), [value if isinstance(value, str) else f"{value:,}" for value in places])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)  # times need theirs within a decade
    axes.grid(alpha=0.3)
    axes.legend()


def accuracies(scores: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the accuracy (0 to 1) of each seed, and their mean as a dash, by precision."""
    figure = _figure(1.6 * len(scores) + 3.0, 3.8)
    axes = figure.subplots()
    for position, found in enumerate(scores.values()):
        axes.plot([position] * len(found), [100 * score for score in found], "o", alpha=0.6)
        axes.plot(position, 100 * float(np.mean(found)), "_k", markersize=24)
    axes.set(xticks=range(len(scores)), xticklabels=list(scores), ylabel="accuracy, %", xlim=(-0.5, len(scores) - 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(path)


def losses(curves: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Draw the training loss by optimizer step, with a curve of points (step, loss) for each precision."""
    figure = _figure(7.0, 3.8)
    axes = figure.subplots()
    for (precision, points), style in zip(curves.items(), itertools.cycle(("-", "--", ":", "-.")), strict=False):
        axes.plot(*zip(*points, strict=True), style, label=precision)
    axes.set(xlabel="optimizer step", ylabel="training loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def shares(parts: Mapping[str, float], path: Path) -> None:
    """Draw the shares (0 to 1) of the parts of a training step, the first part on top."""
    figure = _figure(7.0, 3.6)
    axes = figure.subplots()
    bars = axes.barh(list(parts), [100 * share for share in parts.values()], color="tab:blue")
    axes.bar_label(bars, fmt="%.1f%%", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="% of the step's time", title="Where the time of a training step goes")
    figure.savefig(path)


def gradient_histogram(exponents: Mapping[int, int], path: Path) -> None:
    """Draw the magnitudes of gradient values against the ranges of fp16 and bfloat16.

    Args:
        exponents: for each exponent e, the number of values from 2^e to 2^(e+1).
        path: file to write.
    """
    total = sum(exponents.values())
    figure = _figure(8.0, 3.8)
    axes = figure.subplots()
    heights = [100 * count / total for count in exponents.values()]
    axes.bar(list(exponents), heights, width=1, align="edge", color="tab:blue", zorder=2)
    axes.axvspan(-24, -14, color="tab:orange", alpha=0.15, label="fp16 subnormal (fewer bits): $2^{-24}$ to $2^{-14}$")
    axes.axvspan(-14, np.log2(65504), color="tab:orange", alpha=0.35, label="fp16 normal: $2^{-14}$ to 65504")
    axes.axvline(-126, color="tab:green", label="bfloat16 and float32 normal: from $2^{-126}$")
    axes.set(xlabel="magnitude as a power of two", ylabel="% of the gradient values", xlim=(-130, 20))
    axes.legend(loc="upper left", bbox_to_anchor=(0.05, 1))
    figure.savefig(path)


def _figure(width: float, height: float) -> "Figure":
    # not by pyplot, which keeps every figure in memory and may look for a display
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    """Save a plot with names of classes. Characters that the font lacks are boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")
        figure.savefig(path)
