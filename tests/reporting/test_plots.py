from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_amp.reporting import plots


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, path: Path, **kwargs: Any) -> None:
        save(figure, path, **kwargs)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def lines(figure: Figure) -> list[dict[str, list[tuple[float, float]]]]:
    return [
        {str(line.get_label()): list(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in axes.lines}
        for axes in figure.axes
    ]


def test_curves(tmp_path: Path, drawn: list[Figure]) -> None:
    history = [
        {"epoch": 0, "step": 860, "train_loss": 0.4, "train_accuracy": 0.88, "val_loss": 0.3, "val_accuracy": 0.91},
        {"epoch": 1, "step": 1720, "train_loss": 0.2, "train_accuracy": 0.94},
    ]
    plots.curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in drawn[0].axes] == ["loss", "accuracy"]
    assert lines(drawn[0]) == [
        {"train": [(1, 0.4), (2, 0.2)], "validation": [(1, 0.3)]},
        {"train": [(1, 0.88), (2, 0.94)], "validation": [(1, 0.91)]},
    ]


def test_curves_without_validation(tmp_path: Path, drawn: list[Figure]) -> None:
    history: list[dict[str, float]] = [{"epoch": 0, "step": 938, "train_loss": 0.4, "train_accuracy": 0.88}]
    plots.curves(history, tmp_path / "curves.png")
    assert lines(drawn[0]) == [{"train": [(1, 0.4)]}, {"train": [(1, 0.88)]}]


def test_confusion_matrix(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.confusion_matrix([[3, 1], [0, 0]], tmp_path / "matrix.png")  # no image of a 1
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0"]
    assert axes.get_title() == "3 of 4 images right"
    shades = axes.images[0].get_array()
    assert shades is not None
    assert shades.tolist() == [[0.75, 0.25], [0, 0]]


def test_misclassified(tmp_path: Path, drawn: list[Figure]) -> None:
    image = np.eye(28, dtype=np.uint8)
    plots.misclassified([plots.Mistake(image, 4, 9, 0.9954)] * 30, tmp_path / "wrong.png")
    assert [axes.get_title() for axes in drawn[0].axes] == ["4, guess 9: 99.5%"] * 25
    assert drawn[0].get_suptitle() == "the mistakes the model was surest of"


def test_nothing_misclassified(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.misclassified([], tmp_path / "wrong.png")
    assert drawn[0].get_suptitle() == "no mistakes"


def test_shares(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.shares({"forward": 0.25, "the loop itself": 0.75}, tmp_path / "profile.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["forward", "the loop itself"]
    assert [text.get_text() for text in axes.texts] == ["25.0%", "75.0%"]
    assert axes.yaxis_inverted()


def test_gradient_histogram(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.gradient_histogram({-20: 30, -3: 10}, tmp_path / "gradients.png")
    axes = drawn[0].axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.containers[0]]
    assert bars == [(-20, 1, 75), (-3, 1, 25)]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "fp16, with fewer bits: $2^{-24}$ to $2^{-14}$",
        "fp16, in full: $2^{-14}$ to 65504",
        "bfloat16 and float32, in full: from $2^{-126}$",
    ]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [-126, -126]


def test_no_gradients_but_zeros(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.gradient_histogram({}, tmp_path / "gradients.png")
    assert len(drawn) == 1
