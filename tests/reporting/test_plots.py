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


def test_times(tmp_path: Path, saved: list[Figure]) -> None:
    points = [
        plots.TimePoint(panel="batch_size 64", precision="32-true", x=256, seconds=[0.004, 0.002, 0.003]),
        plots.TimePoint("batch_size 64", "32-true", 128, [0.001]),
        plots.TimePoint("batch_size 64", "bf16-mixed", 128, [0.002]),
        plots.TimePoint("batch_size 64", "bf16-mixed", 256, [0.0025]),
        ("batch_size 1024", "32-true", 1280, [0.01]),  # a plain tuple will do
    ]
    starts = {("batch_size 64", "bf16-mixed"): 192.0, ("batch_size 1024", "32-true"): 9999.0}
    plots.times(points, starts, "hidden_dim", tmp_path / "time.png")
    small, large = saved[0].axes
    assert [axes.get_title() for axes in (small, large)] == ["batch_size 64", "batch_size 1024"]
    assert (small.get_xlabel(), small.get_xscale(), small.get_ylabel()) == ("hidden_dim", "log", "ms per step")
    first, second, start = small.lines
    assert [line.get_label() for line in (first, second)] == ["32-true", "bf16-mixed"]
    assert np.asarray(first.get_xydata()) == pytest.approx(np.array([[128, 1], [256, 3]]))
    assert np.asarray(second.get_xydata()) == pytest.approx(np.array([[128, 2], [256, 2.5]]))
    assert (np.asarray(start.get_xdata()).tolist(), start.get_linestyle()) == ([192, 192], "--")
    band = small.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(vertex, 9)) for vertex in np.asarray(band)} == {(128, 1), (256, 2), (256, 4)}
    assert [label.get_text() for label in small.get_xticklabels()] == ["128", "256", "1,280"]
    assert len(large.lines) == 1  # 9999 is no width that was measured


def test_times_of_words_and_of_zero(tmp_path: Path, saved: list[Figure]) -> None:
    plots.times([("", "32-true", word, [0.001]) for word in ("true", "false")], {}, "fused", tmp_path / "time.png")
    plots.times([("", "32-true", value, [0.001]) for value in (0.1, 0.0)], {}, "momentum", tmp_path / "time.png")
    words, numbers = (figure.axes[0] for figure in saved)
    assert [label.get_text() for label in words.get_xticklabels()] == ["true", "false"]
    assert np.asarray(words.lines[0].get_xydata()).tolist() == [[0, 1], [1, 1]]
    assert [label.get_text() for label in numbers.get_xticklabels()] == ["0.0", "0.1"]
    assert (words.get_xscale(), numbers.get_xscale()) == ("linear", "linear")  # 0 has no logarithm


def test_many_panels_stand_in_several_rows(tmp_path: Path, saved: list[Figure]) -> None:
    plots.times([(f"batch_size {n}", "32-true", 8, [0.001]) for n in range(6)], {}, "width", tmp_path / "time.png")
    assert len(saved[0].axes) == 6
    assert saved[0].get_size_inches().tolist() == [17.0, 7.6]


def test_memory(tmp_path: Path, saved: list[Figure]) -> None:
    points = [
        plots.MemoryPoint(panel="hidden_dim 128", precision="32-true", x=1024, bytes=3_000_000),
        plots.MemoryPoint("hidden_dim 128", "32-true", 64, 2_000_000),
        ("hidden_dim 4096", "bf16-mixed", 64, 9_000_000),  # a plain tuple will do
    ]
    plots.memory(points, "batch_size", tmp_path / "memory.png")
    assert [axes.get_title() for axes in saved[0].axes] == ["hidden_dim 128", "hidden_dim 4096"]
    assert [axes.get_xlabel() for axes in saved[0].axes] == ["batch_size"] * 2
    assert [axes.get_ylabel() for axes in saved[0].axes] == ["memory, MB"] * 2
    assert curves(saved[0]) == [{"32-true": [(64, 2), (1024, 3)]}, {"bf16-mixed": [(64, 9)]}]
    assert [axes.get_ylim()[0] for axes in saved[0].axes] == [0, 0]
    assert [axes.get_ylim()[1] for axes in saved[0].axes] == pytest.approx([3.3, 9.9])


def test_accuracies(tmp_path: Path, saved: list[Figure]) -> None:
    plots.accuracies({"32-true": [0.5, 0.75], "bf16-mixed": [0.25]}, tmp_path / "accuracy.png")
    axes = saved[0].axes[0]
    assert axes.get_ylabel() == "accuracy, %"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32-true", "bf16-mixed"]
    points = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert points == [[[0, 50], [0, 75]], [[0, 62.5]], [[1, 25]], [[1, 25]]]


def test_losses(tmp_path: Path, saved: list[Figure]) -> None:
    plots.losses({"32-true": [[1, 2.3], [2, 1.5]], "bf16-mixed": [[1, 2.4]]}, tmp_path / "loss.png")
    axes = saved[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "training loss")
    assert curves(saved[0]) == [{"32-true": [(1, 2.3), (2, 1.5)], "bf16-mixed": [(1, 2.4)]}]


def test_shares(tmp_path: Path, saved: list[Figure]) -> None:
    plots.shares({"forward": 0.25, "the loop itself": 0.75}, tmp_path / "profile.png")
    axes = saved[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["forward", "the loop itself"]
    assert [text.get_text() for text in axes.texts] == ["25.0%", "75.0%"]
    assert axes.yaxis_inverted()
    assert axes.get_title() == "Where the time of a training step goes"


def test_gradient_histogram(tmp_path: Path, saved: list[Figure]) -> None:
    plots.gradient_histogram({-20: 30, -3: 10}, tmp_path / "gradients.png")
    axes = saved[0].axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.containers[0]]
    assert bars == [(-20, 1, 75), (-3, 1, 25)]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "fp16 subnormal (fewer bits): $2^{-24}$ to $2^{-14}$",
        "fp16 normal: $2^{-14}$ to 65504",
        "bfloat16 and float32 normal: from $2^{-126}$",
    ]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [-126, -126]


def test_gradient_histogram_when_all_gradients_are_zero(tmp_path: Path, saved: list[Figure]) -> None:
    plots.gradient_histogram({}, tmp_path / "gradients.png")
    assert len(saved) == 1
