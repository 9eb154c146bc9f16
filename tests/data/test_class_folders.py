"""The names of folders for classes: written by `predict --save_images`, read by `--data.extra_folder` and `predict`."""

import pytest

from mnist_amp.data.class_folders import LONGEST, cut_name, folder_labels, folder_names


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "9"), ["0", "9"]),
        (("cat", "dog", "cat"), ["cat (0)", "dog", "cat (2)"]),
        (("a/b", "a-b"), ["a-b (0)", "a-b (1)"]),
        (("A", "a", "b"), ["A (0)", "a (1)", "b"]),
        (("cat", "cat", "Cat (0)"), ["cat (0)", "cat (1)", "Cat (0) (2)"]),
        ((".net", "..", ".", "", " "), ["-net", "-.", "-", "class 3", "class 4"]),
        (("two\nlines", "猫"), ["two\\nlines", "猫"]),
        (("x" * 300, "x" * 301), [f"{'x' * LONGEST} (0)", f"{'x' * LONGEST} (1)"]),
    ],
)
def test_names_differ_and_any_file_system_takes_them(classes: tuple[str, ...], expected: list[str]) -> None:
    assert folder_names(classes) == expected
    labels = folder_labels(classes)
    assert [labels[name] for name in expected] == list(range(len(classes)))


def test_a_folder_may_also_have_the_name_of_the_class() -> None:
    assert folder_labels(("A", "a", ".net", "cat", "cat")) == {
        **{"A": 0, "a": 1, ".net": 2},
        **{"A (0)": 0, "a (1)": 1, "-net": 2, "cat (3)": 3, "cat (4)": 4},
    }


def test_long_names_are_cut_between_characters() -> None:
    assert cut_name("x" * LONGEST) == "x" * LONGEST
    assert cut_name("a" + "é" * 100) == "a" + "é" * 59
    assert cut_name("a\udcff") == "a\udcff"  # a byte that is no text
