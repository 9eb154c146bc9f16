"""The folders of runs: `<root>/lightning_logs/version_N`, and `lightning_logs/<kind>/version_N` for other commands."""

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
    """Create the next `version_N` folder. Two processes that do this at the same time get two folders.

    Args:
        root: folder that holds `lightning_logs`.
        kind: command that does not train, such as `compare`; empty for a training run.

    Raises:
        RequestError: the folder can't be created.
    """
    folder = logs_dir(root) / kind
    try:
        return _create(root, kind)
    except OSError as error:
        raise RequestError(
            f"no run can be written to {folder}: {error.strerror or error}. "
            "Name a writable folder with --trainer.default_root_dir."
        ) from error


@contextlib.contextmanager
def transactional_run_dir(root: Path, kind: str) -> Iterator[Path]:
    """Create the next folder as `create_run_dir` does, and remove it again if the body of the `with` fails."""
    folder = create_run_dir(root, kind)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise


def run_dirs(root: Path, kind: str = "") -> Iterator[Path]:
    """Yield the `version_N` folders, newest first."""
    found = [path for path in (logs_dir(root) / kind).glob("version_*") if path.is_dir() and _number(path) >= 0]
    yield from sorted(found, key=_number, reverse=True)


def _create(root: Path, kind: str) -> Path:
    number = max((_number(folder) for folder in run_dirs(root, kind)), default=-1) + 1
    while True:
        folder = logs_dir(root) / kind / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.parent.is_dir():  # the parent is a broken link
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            number += 1
        else:
            return folder


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
