"""Text in columns: facts by name, tables for the terminal, tables in Markdown. Without torch."""

import re


def facts(lines: dict[str, str]) -> str:
    """Lay out names and their values in two columns.

    >>> print(facts({"device": "CPU", "seed": "42"}))
    device  CPU
    seed    42
    """
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


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
