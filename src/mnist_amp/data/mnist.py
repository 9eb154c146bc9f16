"""The MNIST files: shipped as the four published archives, verified by MD5, and unpacked where torchvision has them.

torchvision itself is imported only to unpack and to download: it is not needed to read.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from torch import Tensor

from mnist_amp.data.idx_files import read_images, read_labels
from mnist_amp.data.image_form import ImageForm
from mnist_amp.errors import RequestError, warn

ARCHIVES = Path(__file__).parent / "archives"
TRAIN_SIZE = 60_000
MIRROR_TIMEOUT = 3.0  # seconds; torchvision itself waits forever for a mirror that never answers

PROCESSED = ("training.pt", "test.pt")  # in the folder of an old torchvision
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
# of the unpacked files; torchvision has only the checksums of the archives
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def prepare(data_dir: Path) -> None:
    """Put the unpacked files into `<data_dir>/MNIST/raw`, where torchvision looks for them.

    Each archive is taken from that folder, else from the package, else from torchvision's mirrors. The files are made
    in a temporary folder and moved atomically, so several processes can do this at the same time. If an existing
    folder is not writable, `load` unpacks the archives elsewhere.

    Args:
        data_dir: torchvision's `root`, or the folder MNIST or MNIST/raw in it.

    Raises:
        RequestError: an existing file is not MNIST's, the folder can't be used, or no mirror answers.
    """
    try:
        root = find_root(data_dir)
        _check_folders(root / "MNIST")
        missing = [name for name, md5 in UNPACKED_MD5.items() if not _verified(root / "MNIST" / "raw" / name, md5)]
    except OSError as error:
        folders = (data_dir, data_dir / "MNIST", data_dir / "MNIST" / "raw")
        unreadable = next((folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)), error.filename)
        raise RequestError(
            f"{unreadable} can't be read: {error.strerror}. Name another folder with --data.data_dir."
        ) from error
    if missing:
        _write(root)


def load(data_dir: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read the official training or test set: images (N, 28, 28) uint8 and labels (N,) int64; N is 60,000 or 10,000."""
    root = find_root(data_dir)
    raw = root / "MNIST" / "raw"
    if all((raw / name).is_file() for name in UNPACKED_MD5):
        return _read(raw, train=train)
    with tempfile.TemporaryDirectory() as scratch:  # the folder is not writable
        return _read(_unpack(Path(scratch), raw), train=train)


def _read(raw: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    images, labels = (name for name in UNPACKED_MD5 if name.startswith("train" if train else "t10k"))
    return read_images(raw / images, ImageForm()).squeeze(1), read_labels(raw / labels).long()


def find_root(data_dir: Path) -> Path:
    """Return the folder that torchvision calls `root`: the one that holds `MNIST/raw`.

    Raises:
        RequestError: the folder has such files, but in another place than `MNIST/raw`.
    """
    if (data_dir / "MNIST" / "raw").is_dir():
        return data_dir
    here = data_dir if data_dir.name not in ("", "..") else data_dir.resolve()
    raw = next((folder for folder in (here, here / "raw") if _image_files(folder)), None)
    if raw is None:
        return data_dir
    if raw.absolute().parts[-2:] == ("MNIST", "raw"):
        return raw.parents[1] if len(raw.parts) > 1 else raw.absolute().parents[1]
    raise RequestError(
        f"{raw} has the file {_image_files(raw)[0]}, but torchvision reads MNIST from a folder MNIST/raw. If these "
        "files are MNIST's, move them to such a folder; else name another folder with --data.data_dir."
    )


def _image_files(folder: Path) -> list[str]:
    """Return the files in a folder that are named as those of MNIST and sets like it are."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in names if re.search(r"-(images|labels)[-.]idx[13]-ubyte(\.gz)?$", name))


def _check_folders(folder: Path) -> None:
    """Refuse a folder MNIST with files that torchvision would read instead of the verified ones, or not at all."""
    processed = folder / "processed"
    if all((processed / name).is_file() for name in PROCESSED):
        raise RequestError(
            f"{processed} was made by an old torchvision. torchvision would read it instead of the verified files. "
            "Move it away, or name another folder with --data.data_dir."
        )
    for name in _image_files(folder / "raw"):
        if name.removesuffix(".gz") not in UNPACKED_MD5:
            raise RequestError(
                f"{folder / 'raw' / name} is not named as MNIST's files are, such as {next(iter(UNPACKED_MD5))}. "
                "Rename it or move it away, or name another folder with --data.data_dir."
            )


def _write(root: Path) -> None:
    """Unpack the archives into `<root>/MNIST/raw`."""
    raw, new = root / "MNIST" / "raw", not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".prepare-", dir=root) as scratch:
            unpacked = _unpack(Path(scratch), raw)
            raw.mkdir(parents=True, exist_ok=True)
            for file in unpacked.iterdir():
                if not (raw / file.name).exists():
                    file.replace(raw / file.name)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        if not new and error.errno in NOT_WRITABLE:
            warn(f"can't write MNIST to {root}: {reason}. Each run unpacks it to a temporary folder instead.")
            return
        raise RequestError(
            f"can't write MNIST to {root}: {reason}. Name a writable folder with --data.data_dir."
        ) from error
    finally:
        if new and root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def _unpack(scratch: Path, raw: Path) -> Path:
    """Unpack the four archives of `raw` or of the package, and return the folder, which is in `scratch`."""
    from torchvision.datasets import MNIST

    unpacked = scratch / "MNIST" / "raw"
    unpacked.mkdir(parents=True)
    for name, md5 in MNIST.resources:
        source = next((path for path in (raw / name, ARCHIVES / name) if _verified(path, md5)), None)
        if source is not None:
            shutil.copyfile(source, unpacked / name)
    _download_missing(scratch, raw)
    return unpacked


def _download_missing(root: Path, raw: Path) -> None:
    """Let torchvision download the missing archives, and unpack all four."""
    from torchvision.datasets import MNIST

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT)
    try:
        MNIST(str(root), download=True)
    except (RuntimeError, TimeoutError, ConnectionError) as error:
        raise RequestError(
            f"the package's copy of MNIST is incomplete, and the download failed: {str(error).strip()}. "
            f"Put the four archives {', '.join(name for name, _ in MNIST.resources)} into {raw}."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _verified(path: Path, md5: str) -> bool:
    """Whether the file exists. A file with other contents is an error, because it may be the user's own."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not path.is_file():
        raise RequestError(f"{path} is not a file. Move it away, or name another folder with --data.data_dir.")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise RequestError(
            f"{path} can't be read: {error.strerror}. Move it away and it will be restored, or name another folder "
            "with --data.data_dir."
        ) from error
    if found != md5:
        raise RequestError(
            f"{path} is not MNIST's file: its MD5 is {found}, not {md5}. "
            "Move it away and it will be restored, or name another folder with --data.data_dir."
        )
    return True
