"""How `export` tells what it found; from plain records, with no torch."""

from typing import Any

from mnist_amp.reporting.tables import facts, table
from mnist_amp.wording import counted

HEAD = ["file", "bytes", "arithmetic", "accuracy", "other guesses", "largest difference", "allowed"]


def rows(record: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table of the files, its head first; the record is what `results.json` holds."""
    return [HEAD, *map(_row, record["files"])]


def _row(file: dict[str, Any]) -> list[str]:
    return [
        *(file["file"], f"{file['bytes']:,}", file["arithmetic"], _share(file["accuracy"])),
        *(f"{file['differing_guesses']:,}", f"{file['largest_difference']:.2g}", f"{file['allowed_difference']:.2g}"),
    ]


def terminal(record: dict[str, Any], folder: str, uses: dict[str, str]) -> str:
    """Lay out what `results.json` holds, and how files are used, by format."""
    run, accuracy = record["run"], record["accuracy"]
    progress = f"{counted(run['epochs'], 'epoch')}, step {run['step']:,}"
    lines = {
        "checkpoint": f"{run['checkpoint']} ({progress}), {_share(accuracy)} of {accuracy['images']:,} images",
        "files": f"{folder}/ (results.json has every figure)",
        **uses,
    }
    return "\n".join([table(rows(record)), "", facts(lines)])


def _share(accuracy: dict[str, int]) -> str:
    return f"{accuracy['correct'] / accuracy['images']:.2%}"
