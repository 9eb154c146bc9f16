"""The pictures, made from plain records; no torch here, and matplotlib only when a picture is drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
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
