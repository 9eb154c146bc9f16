"""The results of `export` as text; it does not use torch."""

from collections.abc import Iterable
from dataclasses import astuple
from typing import NamedTuple

from mnist_amp.inference.export_results import Accuracy, ExportedFile, ExportResults
from mnist_amp.reporting.tables import facts, table
from mnist_amp.wording import counted

HEAD = [
    *("file", "bytes", "arithmetic", "accuracy", "other guesses", "largest difference", "allowed"),
    *("1 image, ms", "1,000 images, ms"),
]


class FileRow(NamedTuple):
    """A row of the table of files; the attributes are those of `ExportedFile`."""

    file: str
    bytes: int
    arithmetic: str
    accuracy: Accuracy
    differing_guesses: int
    largest_difference: float
    allowed_difference: float | None
    allowed_guesses: int | None
    single_seconds: float
    bulk_seconds: float
    bulk_images: int


def row(file: ExportedFile) -> FileRow:
    metadata = file.metadata
    return FileRow(
        *(file.file, file.bytes, metadata.arithmetic, metadata.accuracy),
        *(*astuple(file.agreement), *astuple(file.latency)),
    )


def cells(rows: Iterable[FileRow]) -> list[list[str]]:
    """Return the cells of the table of files, its head first."""
    return [HEAD, *map(_cells, rows)]


def _cells(row: FileRow) -> list[str]:
    allowed = f"{row.allowed_guesses:,} guesses" if row.allowed_difference is None else f"{row.allowed_difference:.2g}"
    bulk = row.bulk_seconds * 1000 / row.bulk_images  # a small test set makes a smaller batch
    return [
        *(row.file, f"{row.bytes:,}", row.arithmetic, f"{row.accuracy.share:.2%}", f"{row.differing_guesses:,}"),
        *(f"{row.largest_difference:.2g}", allowed, f"{row.single_seconds * 1000:.3f}", f"{bulk * 1000:.1f}"),
    ]


def terminal(results: ExportResults, folder: str, uses: dict[str, str]) -> str:
    """Return the text for the terminal.

    Args:
        results: of the export.
        folder: where the files are.
        uses: for each format, Python code that uses a file.
    """
    run, accuracy = results.run, results.accuracy
    progress = "weights alone" if run.epochs is None else f"{counted(run.epochs, 'epoch')}, step {run.step:,}"
    progress += ", averaged weights" if run.averaged else ""
    lines = {
        "checkpoint": f"{run.checkpoint} ({progress}), {accuracy.share:.2%} of {accuracy.images:,} images",
        "files": f"{folder}/ (results.json has all results)",
        **uses,
    }
    return "\n".join([table(cells(map(row, results.files))), "", facts(lines)])
