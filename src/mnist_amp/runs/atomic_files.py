"""Files that are written atomically: after a crash there is the old file or the new one, never a part of one."""

import csv
import io
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_amp.errors import RunError

STALE = 3600.0  # seconds; a temporary file is there for a moment only


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to, which then replaces `path`; after an error it is removed.

    The content is on the disk before it gets its name, so it also survives a crash of the machine.

    Raises:
        RunError: the file can't be written, for example because the disk is full.

    Examples:
        >>> with atomic_write(Path("metrics.json")) as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    with describe_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV, the header first."""
    with atomic_write(path) as temporary:
        temporary.write_text(table_text(rows), encoding="utf-8", newline="")


def table_text(rows: Iterable[Iterable[Any]]) -> str:
    r"""Return rows as the text of a CSV file.

    >>> table_text([["index", "guess"], [0, 7]])
    'index,guess\r\n0,7\r\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


@contextmanager
def describe_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file and the free space."""
    try:
        yield
    except OSError as error:
        kept = " The file that was there is unchanged." if path.is_file() else ""
        raise RunError(f"{path} can't be written: {error.strerror or error} ({_free(path)}).{kept}") from error


def remove_stale_files(folder: Path) -> None:
    """Remove the temporary files, in a folder or below it, that killed processes have left."""
    for temporary in folder.rglob(".*.*.*"):
        if re.fullmatch(r"\.\w+\.\d+\.\w+", temporary.name) and time.time() - temporary.stat().st_mtime > STALE:
            temporary.unlink(missing_ok=True)


def _free(path: Path) -> str:
    there = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    return f"{shutil.disk_usage(there).free / 1e6:,.0f} MB free there"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
