"""Files that appear whole or not at all."""

import csv
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_amp.errors import RunError

STALE = 3600.0  # seconds; a draft is there for a moment only


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; what is there then takes the place of `path`, unless an error came.

    The content is on the disk before the name is, so a crash of the machine leaves the old file or the new one.

    Raises:
        RunError: it can't be written, as the disk is full for instance.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            yield draft
            _flush(draft)
            draft.replace(path)
            _flush(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows, the head first, as CSV."""
    with atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of what can't be written where it is and how much room there is."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} can't be written: {error.strerror or error} ({_free(path)}). What was there before is as it was."
        ) from error


def sweep(folder: Path) -> None:
    """Remove the drafts, in a folder or below it, that processes left when they were killed."""
    for draft in folder.rglob(".*.*.*"):
        if re.fullmatch(r"\.\w+\.\d+\.\w+", draft.name) and time.time() - draft.stat().st_mtime > STALE:
            draft.unlink(missing_ok=True)


def _free(path: Path) -> str:
    there = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    return f"{shutil.disk_usage(there).free / 1e6:,.0f} MB free there"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
