"""Text in columns: facts by name, tables for the terminal, tables in Markdown. Without torch."""

import re
import textwrap
from collections.abc import Sequence


def facts(lines: dict[str, str], columns: int | None = None) -> str:
    """Lay out names and their values in two columns.

    Args:
        lines: the values by name.
        columns: of the terminal; longer values are wrapped. By default nothing is wrapped.

    >>> print(facts({"device": "CPU", "seed": "42"}))
    device  CPU
    seed    42
    """
    width = max(map(len, lines))
    texts = [f"{name:<{width}}  {value}" for name, value in lines.items()]
    return "\n".join(
        texts if columns is None else [line for text in texts for line in wrapped(text, columns, width + 2)]
    )


def wrapped(text: str, columns: int, indent: int = 2) -> list[str]:
    """Return the lines of a text that is wrapped between words; those after the first are indented.

    >>> wrapped("Use 32-true here", 12)
    ['Use 32-true', '  here']
    """
    return textwrap.wrap(text, columns, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def fit_columns(rows: list[list[str]], columns: int, optional: Sequence[str]) -> list[list[str]]:
    """Return the rows without the columns that are left out until the table fits the terminal.

    Args:
        rows: the header first. All rows have the same number of cells.
        columns: of the terminal.
        optional: heads of columns that may be left out, the first that is left out first.

    >>> fit_columns([["file", "note"], ["a.png", "unsure"]], 8, ["note"])
    [['file'], ['a.png']]
    """
    for name in optional:
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) > columns and name in rows[0]:
            left_out = rows[0].index(name)
            rows = [[*row[:left_out], *row[left_out + 1 :]] for row in rows]
    return rows


def table(rows: list[list[str]]) -> str:
    """Lay out rows of cells in columns for the terminal. Columns of numbers are aligned right.

    Args:
        rows: the header first. All rows have the same number of cells.

    >>> print(table([["file", "bytes"], ["model.pth", "408,541"], ["a.onnx", "99"]]))
    file         bytes
    model.pth  408,541
    a.onnx          99
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [any(re.fullmatch(r"[\d.,]+%?", cell) for cell in column[1:]) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )


def markdown(rows: list[list[str]]) -> str:
    """Lay out rows of cells as a Markdown table.

    Args:
        rows: the header first. All rows have the same number of cells.

    >>> print(markdown([["precision", "accuracy"], ["32-true", "97.43%"]]))
    | precision | accuracy |
    |---|---|
    | 32-true | 97.43% |
    """
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, f"|{'---|' * len(rows[0])}", *body])
