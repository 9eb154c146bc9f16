"""The plots of a run. Without torch; matplotlib is imported only when a plot is drawn."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_amp.reporting.chart_style import new_figure
from mnist_amp.reporting.class_names import shortened, unique_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bin = tuple[float, float, int]  # mean confidence and accuracy of some images, 0 to 1, and their number
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


def curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and the accuracy by epoch.

    Args:
        history: a row for each epoch with `epoch` (from 0), `train_loss` and `train_accuracy`; with `val_loss` and
            `val_accuracy` if it had a validation.
        path: file to write.
    """
    figure = new_figure(9.0, 3.6)
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
        figure = new_figure(side + 0.4, side)
        return figure, figure.subplots()
    figure = new_figure(side + PAIRS_WIDTH, side)
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


def reliability(bins: Sequence[Bin], calibrated: Sequence[Bin] | None, title: str, path: Path) -> None:
    """Draw accuracy against confidence, and below it the number of images of each bin.

    Args:
        bins: of the probabilities of the network, without empty bins.
        calibrated: of its probabilities at the fitted temperature; None if there is none.
        title: of the plot.
        path: file to write.
    """
    figure = new_figure(5.6, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), "k:", label="calibrated perfectly")
    for label, style, points in (("softmax(logits)", "s--", bins), ("softmax(logits / temperature)", "o-", calibrated)):
        if points:
            confidence, accuracy, images = zip(*points, strict=True)
            (line,) = above.plot(confidence, accuracy, style, label=label)
            below.plot(confidence, images, style, color=line.get_color())
    above.set(ylabel="accuracy", title=title, xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="confidence: the probability of the guess", ylabel="images", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend()
    figure.savefig(path)


def misclassified(mistakes: list[Mistake], path: Path) -> None:
    """Draw up to 25 mistakes, in the given order."""
    figure = new_figure(7.5, 8.0)
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


def _save(figure: "Figure", path: Path) -> None:
    """Save a plot with names of classes. Characters that the font lacks are boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")
        figure.savefig(path)
