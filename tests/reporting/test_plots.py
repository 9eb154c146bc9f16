from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_amp.reporting import plots


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return a list that collects the plots as they are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, path: Path, **kwargs: Any) -> None:
        save(figure, path, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def curves(figure: Figure) -> list[dict[str, list[tuple[float, float]]]]:
    return [
        {str(line.get_label()): list(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in axes.lines}
        for axes in figure.axes
    ]


def test_curves(tmp_path: Path, saved: list[Figure]) -> None:
    history = [
        {"epoch": 0, "step": 860, "train_loss": 0.4, "train_accuracy": 0.88, "val_loss": 0.3, "val_accuracy": 0.91},
        {"epoch": 1, "step": 1720, "train_loss": 0.2, "train_accuracy": 0.94},
    ]
    plots.curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in saved[0].axes] == ["loss", "accuracy"]
    assert curves(saved[0]) == [
        {"training": [(1, 0.4), (2, 0.2)], "validation": [(1, 0.3)]},
        {"training": [(1, 0.88), (2, 0.94)], "validation": [(1, 0.91)]},
    ]


def test_curves_without_validation(tmp_path: Path, saved: list[Figure]) -> None:
    history: list[dict[str, float]] = [{"epoch": 0, "step": 938, "train_loss": 0.4, "train_accuracy": 0.88}]
    plots.curves(history, tmp_path / "curves.png")
    assert curves(saved[0]) == [{"training": [(1, 0.4)]}, {"training": [(1, 0.88)]}]


def test_confusion_matrix(tmp_path: Path, saved: list[Figure]) -> None:
    plots.confusion_matrix([[3, 1], [0, 0]], tmp_path / "matrix.png", ["cat", "dog"])  # no image of class 1
    axes = saved[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0"]
    assert axes.get_title() == "3 of 4 images correct"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [(label.get_text(), label.get_rotation()) for label in labels] == [("cat", 0), ("dog", 0)]
    shades = axes.images[0].get_array()
    assert shades is not None
    assert shades.tolist() == [[0.75, 0.25], [0, 0]]


def diagonal(count: int, *mistakes: tuple[int, int, int]) -> list[list[int]]:
    """Return a confusion matrix with 100 correct images of each class, and mistakes (true, predicted, images)."""
    matrix = 100 * np.eye(count, dtype=np.int64)
    for true, predicted, images in mistakes:
        matrix[true, predicted] = images
    found: list[list[int]] = matrix.tolist()
    return found


def test_confusion_matrix_of_classes_with_long_names(tmp_path: Path, saved: list[Figure]) -> None:
    names = [f"$name {index} of a class that is sold for $9" for index in range(20)]
    plots.confusion_matrix(diagonal(20), tmp_path / "matrix.png", names)
    (axes,) = saved[0].axes
    assert len(axes.texts) == 400
    labels = axes.get_xticklabels()
    assert len(labels) == 20
    assert (labels[3].get_text(), labels[3].get_rotation()) == ("$name 3 o...d for $9", 90)


@pytest.mark.parametrize(("count", "step"), [(26, 1), (30, 1), (100, 4), (1000, 40)])
def test_confusion_matrix_of_many_classes(tmp_path: Path, saved: list[Figure], count: int, step: int) -> None:
    names = [f"class {index}" for index in range(count)]
    plots.confusion_matrix(diagonal(count, (0, 5, 7), (25, 3, 9)), tmp_path / "matrix.png", names)
    (axes,) = saved[0].axes
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == names[::step]
    assert axes.get_ylabel() == ("true class" if step == 1 else f"true class (1 in {step} is named)")
    assert [text.get_text() for text in saved[0].texts] == [
        "Most confused, true → predicted: images\n\nclass 25 → class 3: 9\nclass 0 → class 5: 7"
    ]
    bounds = axes.get_tightbbox()
    assert bounds is not None
    width, height = saved[0].get_size_inches() * saved[0].dpi
    assert bounds.x0 >= 0
    assert bounds.y0 >= 0
    assert bounds.x1 <= saved[0].texts[0].get_window_extent().x0
    assert bounds.y1 <= height
    assert saved[0].texts[0].get_window_extent().x1 <= width


def test_confusion_matrix_without_mistakes(tmp_path: Path, saved: list[Figure]) -> None:
    plots.confusion_matrix(diagonal(21), tmp_path / "matrix.png", list("abcdefghijklmnopqrstu"))
    assert saved[0].texts[0].get_text() == "Most confused, true → predicted: images\n\nnone"


def test_most_confused_classes_in_their_order() -> None:
    counts = np.array(diagonal(30, *((index, 0, 5) for index in range(1, 20)), (3, 7, 8)))
    assert plots.most_confused(counts) == [(3, 7), *((index, 0) for index in range(1, 15))]


def test_characters_that_the_font_lacks_are_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    plots.confusion_matrix(diagonal(2), tmp_path / "matrix.png", ["猫", "犬"])
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_misclassified_in_colour_with_long_names(tmp_path: Path, saved: list[Figure]) -> None:
    image = np.full((32, 48, 3), (200, 100, 50), dtype=np.uint8)
    names = ("red-breasted merganser", "American alligator in a lake")
    plots.misclassified([plots.Mistake(image, *names, 0.5)], tmp_path / "wrong.png")
    (axes,) = saved[0].axes
    assert axes.get_title() == "red-breasted merganser\n→ American ...n a lake\n(50.0%)"
    shown = axes.images[0].get_array()
    assert shown is not None
    assert shown.tolist() == image.tolist()


def test_misclassified(tmp_path: Path, saved: list[Figure]) -> None:
    image = np.eye(28, dtype=np.uint8)
    plots.misclassified([plots.Mistake(image, "4", "9", 0.9954)] * 30, tmp_path / "wrong.png")
    assert [axes.get_title() for axes in saved[0].axes] == ["4 → 9 (99.5%)"] * 25
    assert saved[0].get_suptitle() == "Most confident mistakes: true class → predicted class (probability)"


def test_misclassified_without_mistakes(tmp_path: Path, saved: list[Figure]) -> None:
    plots.misclassified([], tmp_path / "wrong.png")
    assert saved[0].get_suptitle() == "No mistakes"


def test_curves_of_many_epochs_have_no_markers(tmp_path: Path, saved: list[Figure]) -> None:
    history: list[dict[str, float]] = [
        {"epoch": epoch, "step": epoch + 1, "train_loss": 0.4, "train_accuracy": 0.88} for epoch in range(30)
    ]
    plots.curves(history[:29], tmp_path / "curves.png")
    plots.curves(history, tmp_path / "curves.png")
    assert [figure.axes[0].lines[0].get_marker() for figure in saved] == ["o", "None"]
