import doctest

from mnist_amp.reporting import tables
from mnist_amp.reporting.tables import facts, markdown, table

ROWS = [["file", "bytes", "accuracy"], ["model.pth", "408,541", "97.43%"], ["a.onnx", "99", "-"]]


def test_facts_are_two_columns() -> None:
    assert facts({"device": "CPU", "seed": "42"}) == "device  CPU\nseed    42"


def test_numbers_are_aligned_right_and_names_left() -> None:
    assert table(ROWS) == (
        "file         bytes  accuracy\n"  # a header is aligned as its column
        "model.pth  408,541    97.43%\n"
        "a.onnx          99         -"
    )


def test_a_table_has_no_spaces_at_the_ends_of_lines() -> None:
    assert table([["file", "note"], ["a.png", ""], ["b.png", "unsure"]]) == "file   note\na.png\nb.png  unsure"


def test_markdown() -> None:
    assert markdown(ROWS) == (
        "| file | bytes | accuracy |\n|---|---|---|\n| model.pth | 408,541 | 97.43% |\n| a.onnx | 99 | - |"
    )


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(tables) == (0, 3)
