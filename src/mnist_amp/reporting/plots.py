"""The pictures, made from plain records; no torch here, and matplotlib only when a picture is drawn."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mistake:
    """An image (28, 28) uint8, the digit it shows, and the model's guess with its probability (0 to 1)."""

    image: NDArray[np.uint8]
    digit: int
    guess: int
    probability: float


def curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw loss and accuracy by epoch; `history` has a row an epoch, with validation figures where there were any."""
    figure = _figure(9.0, 3.6)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, style in (("train", "o-"), ("val", "s--")):
            points = [(row["epoch"] + 1, row[f"{part}_{name}"]) for row in history if f"{part}_{name}" in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    style if len(points) < 30 else style.strip("os"),
                    label="validation" if part == "val" else part,
                )
        axes.set(xlabel="epochs trained", title=name, xlim=(0.5, len(history) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def confusion_matrix(matrix: list[list[int]], path: Path) -> None:
    """Draw how often each digit (row) was taken for each (column); the shade is the share of the row's images."""
    from matplotlib.colors import PowerNorm

    counts = np.array(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = _figure(6.0, 5.6)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, vmin=0, vmax=1))  # or the few mistakes could not be seen
    for digit, guess in np.ndindex(counts.shape):
        color = "white" if shares[digit, guess] > 0.5 else "black"
        axes.text(guess, digit, str(counts[digit, guess]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="guess", ylabel="digit", xticks=range(len(matrix)), yticks=range(len(matrix)))
    axes.set_title(f"{counts.trace():,} of {counts.sum():,} images right")
    figure.savefig(path)


def misclassified(mistakes: list[Mistake], path: Path) -> None:
    """Draw up to 25 mistakes, in the order given, each with the digit, the guess and its probability."""
    figure = _figure(7.5, 8.0)
    figure.suptitle("the mistakes the model was surest of" if mistakes else "no mistakes")
    for place, mistake in enumerate(mistakes[:25]):
        axes = figure.add_subplot(5, 5, place + 1)
        axes.imshow(mistake.image, cmap="gray_r")
        axes.set_title(f"{mistake.digit}, guess {mistake.guess}: {mistake.probability:.1%}", fontsize=9)
        axes.axis("off")
    figure.savefig(path)


def times(points: list[tuple[int, str, int, list[float]]], starts: dict[tuple[int, str], float], path: Path) -> None:
    """Draw the time of a step by width, a panel for each batch size.

    Args:
        points: (batch size, precision, width, seconds by round).
        starts: the width from which on a precision pays, by batch size and precision; drawn as a dashed line.
        path: of the picture.
    """
    batches = sorted({batch for batch, *_ in points})
    figure = _figure(4.0 * len(batches) + 1.0, 3.8)
    for axes, batch in zip(figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True):
        for name in dict.fromkeys(name for _, name, *_ in points):
            line = sorted(
                (width, sorted(found)) for size, label, width, found in points if (size, label) == (batch, name)
            )
            if line:
                widths = [width for width, _ in line]
                (drawn,) = axes.plot(widths, [1e3 * float(np.median(found)) for _, found in line], "o-", label=name)
                if widths[0] < starts.get((batch, name), 0) <= widths[-1]:
                    axes.axvline(starts[batch, name], color=drawn.get_color(), linestyle="--", alpha=0.6)
                axes.fill_between(widths, *np.array([(1e3 * f[0], 1e3 * f[-1]) for _, f in line]).T, alpha=0.2)
        axes.set(xscale="log", yscale="log", xlabel="hidden_dim", ylabel="ms a step", title=f"batch {batch}")
        _plain_ticks(axes, sorted({width for _, _, width, _ in points}))
    figure.savefig(path)


def memory(points: list[tuple[int, str, int, int]], path: Path) -> None:
    """Draw memory by batch size, a panel for each width: (width, precision, batch size, bytes)."""
    widths = sorted({width for width, *_ in points})
    figure = _figure(3.2 * len(widths) + 1.0, 3.8)
    for axes, width in zip(figure.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        for name in dict.fromkeys(name for _, name, *_ in points):
            line = sorted(
                (batch, size / 1e6) for place, label, batch, size in points if (place, label) == (width, name)
            )
            if line:
                axes.plot(*zip(*line, strict=True), "o-", label=name)
        axes.set(xscale="log", xlabel="batch size", ylabel="MB", title=f"hidden_dim {width}")
        axes.set_ylim(0, 1.1 * max(size / 1e6 for place, _, _, size in points if place == width))
        _plain_ticks(axes, sorted({batch for _, _, batch, _ in points}))
    figure.savefig(path)


def accuracies(scores: dict[str, list[float]], path: Path) -> None:
    """Draw the accuracy (0 to 1) of each seed, and their mean, by precision."""
    figure = _figure(1.6 * len(scores) + 3.0, 3.8)
    axes = figure.subplots()
    for place, found in enumerate(scores.values()):
        axes.plot([place] * len(found), [100 * score for score in found], "o", alpha=0.6)
        axes.plot(place, 100 * float(np.mean(found)), "_k", markersize=24)
    axes.set(xticks=range(len(scores)), xticklabels=list(scores), ylabel="accuracy, %", xlim=(-0.5, len(scores) - 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(path)


def losses(curves: dict[str, list[list[float]]], path: Path) -> None:
    """Draw the training loss by optimizer step, (step, loss), of each precision over the others."""
    figure = _figure(7.0, 3.8)
    axes = figure.subplots()
    for (name, points), style in zip(curves.items(), itertools.cycle(("-", "--", ":", "-.")), strict=False):
        axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set(xlabel="optimizer steps", ylabel="training loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def _plain_ticks(axes: "Axes", values: list[int]) -> None:
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()


def shares(parts: dict[str, float], path: Path) -> None:
    """Draw the shares (0 to 1) of a step's parts, the first on top."""
    figure = _figure(7.0, 3.6)
    axes = figure.subplots()
    bars = axes.barh(list(parts), [100 * share for share in parts.values()], color="tab:blue")
    axes.bar_label(bars, fmt="%.1f%%", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="% of a step", title="where the time of a training step goes")
    figure.savefig(path)


def gradient_histogram(exponents: dict[int, int], path: Path) -> None:
    """Draw how many values are from 2^e to 2^(e+1), for each exponent e, against what fp16 and bfloat16 can hold."""
    total = sum(exponents.values())
    figure = _figure(8.0, 3.8)
    axes = figure.subplots()
    heights = [100 * count / total for count in exponents.values()]
    axes.bar(list(exponents), heights, width=1, align="edge", color="tab:blue", zorder=2)
    axes.axvspan(-24, -14, color="tab:orange", alpha=0.15, label="fp16, with fewer bits: $2^{-24}$ to $2^{-14}$")
    axes.axvspan(-14, np.log2(65504), color="tab:orange", alpha=0.35, label="fp16, in full: $2^{-14}$ to 65504")
    axes.axvline(-126, color="tab:green", label="bfloat16 and float32, in full: from $2^{-126}$")
    axes.set(xlabel="magnitude as a power of two", ylabel="% of gradient values", xlim=(-130, 20))
    axes.legend(loc="upper left", bbox_to_anchor=(0.05, 1))
    figure.savefig(path)


def _figure(width: float, height: float) -> "Figure":
    # not pyplot: it keeps every figure, and may look for a screen
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")
