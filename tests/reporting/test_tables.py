import doctest

from mnist_amp.reporting import tables
from mnist_amp.reporting.tables import facts, fit_columns, markdown, table, wrapped

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


def test_long_facts_are_wrapped_under_their_values() -> None:
    assert facts({"a": "one two three", "long": "x"}, 12) == "a     one\n      two\n      three\nlong  x"


def test_a_word_that_is_too_long_stays_in_one_piece() -> None:
    assert wrapped("see lightning_logs/compare/version-0 (2 charts)", 14) == [
        *("see", "  lightning_logs/compare/version-0", "  (2 charts)"),
    ]


def test_columns_are_left_out_until_the_table_fits() -> None:
    assert fit_columns(ROWS, 28, ["bytes", "accuracy"]) == ROWS
    assert fit_columns(ROWS, 27, ["unknown", "bytes", "accuracy"]) == [[row[0], row[2]] for row in ROWS]
    assert fit_columns(ROWS, 3, ["bytes", "accuracy"]) == [row[:1] for row in ROWS]


def test_markdown() -> None:
    assert markdown(ROWS) == (
        "| file | bytes | accuracy |\n|---|---|---|\n| model.pth | 408,541 | 97.43% |\n| a.onnx | 99 | - |"
    )


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(tables) == (0, 5)
