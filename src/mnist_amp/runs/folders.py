"""Run folders, `<root>/lightning_logs/version_N`, and the checkpoints in them."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mnist_amp.errors import RequestError


def logs_dir(root: Path) -> Path:
    """Return the folder that holds the runs, by Lightning's convention."""
    return root / "lightning_logs"


def create_run_dir(root: Path, kind: str = "") -> Path:
    """Make the next folder for a run, or for a comparison and its like. Two processes that ask at once get two folders.

    Raises:
        RequestError: it can't be made there.
    """
    folder = logs_dir(root) / kind
    try:
        return _create(root, kind)
    except OSError as error:
        raise RequestError(
            f"no run can be written to {folder}: {error.strerror or error}. "
            "Name a folder that can be written with --trainer.default_root_dir."
        ) from error


@contextlib.contextmanager
def transactional_run_dir(root: Path, kind: str) -> Iterator[Path]:
    """Make the next folder, as `create_run_dir` does, to be filled meanwhile; there is none if that fails."""
    folder = create_run_dir(root, kind)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise


def _create(root: Path, kind: str) -> Path:
    number = max((_number(folder) for folder in run_dirs(root, kind)), default=-1) + 1
    while True:
        folder = logs_dir(root) / kind / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.parent.is_dir():  # but a link to nothing
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            number += 1
        else:
            return folder


def run_dirs(root: Path, kind: str = "") -> Iterator[Path]:
    """Yield the folders of runs, or of comparisons and their like, newest first."""
    found = [path for path in (logs_dir(root) / kind).glob("version_*") if path.is_dir() and _number(path) >= 0]
    yield from sorted(found, key=_number, reverse=True)


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
