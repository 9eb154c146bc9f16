"""The plots. Without torch; matplotlib is imported only when a plot is drawn."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MISTAKES = 25  # a grid of 5 x 5
MAX_MARKED = 30  # a curve of as many points or more is drawn without a marker at each point


class Mistake(NamedTuple):
    """A misclassified image.

    Attributes:
        image: (28, 28) uint8.
        digit: the digit that it shows.
        guess: the most probable digit, according to the model.
        probability: of the guess, 0 to 1.
    """

    image: NDArray[np.uint8]
    digit: int
    guess: int
    probability: float


class TimePoint(NamedTuple):
    """The time of a training step: seconds by round."""

    batch_size: int
    precision: str
    hidden_dim: int
    seconds: Sequence[float]


class MemoryPoint(NamedTuple):
    """The memory of a training step in bytes."""

    hidden_dim: int
    precision: str
    batch_size: int
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


def confusion_matrix(matrix: list[list[int]], path: Path) -> None:
    """Draw a confusion matrix. The shade of a cell is its share of the images of its row.

    Args:
        matrix: number of images by true digit (row) and predicted digit (column), for any number of classes.
        path: file to write.

    Example: 3 images of class 0, of which 2 are classified correctly, and 4 of class 1.

        plots.confusion_matrix([[2, 1], [0, 4]], Path("confusion_matrix.png"))
    """
    from matplotlib.colors import PowerNorm

    counts = np.array(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = _figure(6.0, 5.6)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, vmin=0, vmax=1))  # so that a few mistakes can be seen
    for digit, guess in np.ndindex(counts.shape):
        color = "white" if shares[digit, guess] > 0.5 else "black"
        axes.text(guess, digit, str(counts[digit, guess]), ha="center", va="center", color=color, fontsize=8)
    ticks = range(len(matrix))
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=ticks, yticks=ticks)
    axes.set_title(f"{counts.trace():,} of {counts.sum():,} images correct")
    figure.savefig(path)


def misclassified(mistakes: list[Mistake], path: Path) -> None:
    """Draw up to 25 mistakes, in the given order."""
    figure = _figure(7.5, 8.0)
    title = "Most confident mistakes: true digit → predicted digit (probability)"
    figure.suptitle(title if mistakes else "No mistakes")
    for index, mistake in enumerate(mistakes[:MAX_MISTAKES]):
        axes = figure.add_subplot(5, 5, index + 1)
        axes.imshow(mistake.image, cmap="gray_r")
        axes.set_title(f"{mistake.digit} → {mistake.guess} ({mistake.probability:.1%})", fontsize=9)
        axes.axis("off")
    figure.savefig(path)


def times(
    points: Iterable[tuple[int, str, int, Sequence[float]]], starts: Mapping[tuple[int, str], float], path: Path
) -> None:
    """Draw the time of a step by hidden_dim, with a panel for each batch size.

    The line is the median of the rounds, the band goes from the fastest round to the slowest.

    Args:
        points: a `TimePoint` for each measurement, or a plain tuple of its fields.
        starts: the hidden_dim from which a precision is faster, by batch size and precision; drawn as a dashed line.
        path: file to write.
    """
    named = [TimePoint(*point) for point in points]
    batch_sizes = sorted({point.batch_size for point in named})
    figure = _figure(4.0 * len(batch_sizes) + 1.0, 3.8)
    for axes, batch_size in zip(figure.subplots(1, len(batch_sizes), squeeze=False)[0], batch_sizes, strict=True):
        for precision in dict.fromkeys(point.precision for point in named):
            line = [point for point in named if (point.batch_size, point.precision) == (batch_size, precision)]
            if line:
                _draw_times(axes, line, starts.get((batch_size, precision), 0))
        axes.set(xscale="log", yscale="log", xlabel="hidden_dim", ylabel="ms per step")
        axes.set_title(f"batch size {batch_size:,}")
        _plain_ticks(axes, sorted({point.hidden_dim for point in named}))
    figure.savefig(path)


def _draw_times(axes: "Axes", line: list[TimePoint], start: float) -> None:
    line = sorted(line, key=lambda point: point.hidden_dim)
    widths = [point.hidden_dim for point in line]
    milliseconds = [1e3 * np.array(point.seconds) for point in line]
    (drawn,) = axes.plot(widths, [float(np.median(rounds)) for rounds in milliseconds], "o-", label=line[0].precision)
    axes.fill_between(widths, [rounds.min() for rounds in milliseconds], [r.max() for r in milliseconds], alpha=0.2)
    if widths[0] < start <= widths[-1]:
        axes.axvline(start, color=drawn.get_color(), linestyle="--", alpha=0.6)


def memory(points: Iterable[tuple[int, str, int, int]], path: Path) -> None:
    """Draw the memory of a step by batch size, with a panel for each hidden_dim.

    Args:
        points: a `MemoryPoint` for each measurement, or a plain tuple of its fields.
        path: file to write.
    """
    named = [MemoryPoint(*point) for point in points]
    widths = sorted({point.hidden_dim for point in named})
    figure = _figure(3.2 * len(widths) + 1.0, 3.8)
    for axes, width in zip(figure.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        panel = [point for point in named if point.hidden_dim == width]
        for precision in dict.fromkeys(point.precision for point in named):
            line = sorted((point.batch_size, point.bytes / 1e6) for point in panel if point.precision == precision)
            if line:
                axes.plot(*zip(*line, strict=True), "o-", label=precision)
        axes.set(xscale="log", xlabel="batch size", ylabel="memory, MB", title=f"hidden_dim {width:,}")
        axes.set_ylim(0, 1.1 * max(point.bytes / 1e6 for point in panel))
        _plain_ticks(axes, sorted({point.batch_size for point in named}))
    figure.savefig(path)


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


def _plain_ticks(axes: "Axes", values: list[int]) -> None:
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()


def _figure(width: float, height: float) -> "Figure":
    # not by pyplot, which keeps every figure in memory and may look for a display
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")
