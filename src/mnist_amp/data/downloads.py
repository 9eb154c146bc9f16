"""Downloads by torchvision that overwrite nothing, leave no partial files, and report all files that are missing."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from unittest.mock import patch

from filelock import FileLock
from torchvision.datasets import utils

from mnist_amp.data.mnist import MIRROR_TIMEOUT
from mnist_amp.errors import RequestError


class Downloader:
    """Replaces torchvision's `download_url` and `extract_archive` for a temporary folder.

    A file that `root` has already is verified and linked instead of downloaded. A failure is recorded rather than
    raised, so that the class asks for all its files; after the first failure nothing more is tried.

    Args:
        name: of the data set, for messages.
        scratch: the temporary folder, which torchvision is given as its root.
        root: the folder that the files are for.

    Attributes:
        missing: the files that could not be downloaded, where they belong in `root`.
        reason: why the first one could not.
    """

    def __init__(self, name: str, scratch: Path, root: Path) -> None:
        self.name, self.scratch, self.root = name, scratch, root
        self.missing: list[Path] = []
        self.reason = ""
        self._download_url, self._extract_archive = utils.download_url, utils.extract_archive

    def download_url(
        self,
        url: str,
        root: str | Path,
        filename: str | Path | None = None,
        md5: str | None = None,
        max_redirect_hops: int = 3,
    ) -> None:
        file = Path(root).expanduser() / (filename or os.path.basename(url))  # noqa: PTH119
        present = self.root / file.relative_to(self.scratch)
        if present.exists():
            self._verify(present, md5)
            file.parent.mkdir(parents=True, exist_ok=True)
            _link(present.resolve(), file)
        elif self.missing and not file.exists():
            self.missing.append(present)
        else:
            try:
                self._download_url(url, root, filename, md5, max_redirect_hops)
            except (OSError, RuntimeError, HTTPException) as error:
                file.unlink(missing_ok=True)
                self.missing.append(present)
                self.reason = str(error).strip().removesuffix(".") or type(error).__name__

    def extract_archive(
        self, from_path: str | Path, to_path: str | Path | None = None, remove_finished: bool = False
    ) -> str | Path:
        if not Path(from_path).exists():
            return from_path
        extracted: str | Path = self._extract_archive(from_path, to_path, remove_finished)
        return extracted

    def _verify(self, file: Path, md5: str | None) -> None:
        """Refuse a file with another MD5: torchvision would overwrite it."""
        found = md5 if md5 is None else utils.calculate_md5(file)
        if found != md5:
            raise RequestError(
                f"{file} is not {self.name}'s file: its MD5 is {found}, not {md5}. Move it away and it will be "
                "downloaded, or name another folder with --data.data_dir."
            )

    def error(self) -> RequestError:
        """Return the error that lists the missing files by their folder."""
        folders = {file.parent: [f.name for f in self.missing if f.parent == file.parent] for file in self.missing}
        lists = " and ".join(f"{', '.join(dict.fromkeys(names))} into {folder}" for folder, names in folders.items())
        return RequestError(f"{self.name} can't be downloaded: {self.reason}. Put {lists}.")


def download(name: str, module: str, root: Path, make: Callable[[Path], None]) -> None:
    """Let torchvision download a data set into a temporary folder of `root`, and move what is new to `root`.

    Args:
        name: of the data set, for messages.
        module: the module of torchvision that has its class.
        root: torchvision's folder of data sets.
        make: makes the datasets in a folder, with a download.

    Raises:
        RequestError: files are missing, which it lists, or a file in `root` is another one.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
        scratch = Path(folder)
        downloader = Downloader(name, scratch, root)
        with _replaced(downloader, module), _timeout(MIRROR_TIMEOUT):
            try:
                make(scratch)
            except RequestError:
                raise
            except Exception:
                if not downloader.missing:
                    raise
        if downloader.missing:
            raise downloader.error()
        _merge(scratch, root)


@contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold the lock of a data set in a folder, which is created if it is missing, and removed if it stays empty.

    Raises:
        RequestError: the folder is not writable.
    """
    new, file = not root.exists(), root / f".{name}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire()
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise RequestError(
            f"can't write {name} to {root}: {reason}. Name a writable folder with --data.data_dir."
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # a process that comes now makes another; it then finds the files
        lock.release()
        if new:
            with suppress(OSError):
                root.rmdir()


@contextmanager
def _replaced(downloader: Downloader, module: str) -> Iterator[None]:
    """Replace the functions where torchvision looks them up: in `utils`, and in a module that imported them."""
    with ExitStack() as stack:
        for place in (utils, sys.modules[module]):
            for function in ("download_url", "extract_archive"):
                if hasattr(place, function):
                    stack.enter_context(patch.object(place, function, getattr(downloader, function)))
        yield


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Limit how long a server may keep silent; torchvision itself waits forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _link(file: Path, link: Path) -> None:
    try:
        link.symlink_to(file)
    except OSError:  # Windows without the right to make links
        shutil.copyfile(file, link)


def _merge(source: Path, target: Path) -> None:
    """Move what the target lacks. A folder that it lacks is moved as a whole, and so is never there in part."""
    for path in list(source.iterdir()):
        place = target / path.name
        if not place.exists():
            path.rename(place)
        elif path.is_dir() and not path.is_symlink() and place.is_dir():
            _merge(path, place)
