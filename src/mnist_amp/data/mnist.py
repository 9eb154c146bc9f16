"""The MNIST files: shipped as the four published archives, verified by MD5, unpacked and read by torchvision."""

import hashlib
import shutil
import socket
import tempfile
from pathlib import Path

from torch import Tensor
from torchvision.datasets import MNIST

from mnist_amp.errors import RequestError

ARCHIVES = Path(__file__).parent / "archives"
TRAIN_SIZE = 60_000
MIRROR_TIMEOUT = 3.0  # seconds; torchvision itself waits forever for a mirror that never answers

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
    in a temporary folder and moved atomically, so several processes can do this at the same time.

    Raises:
        RequestError: an existing file is not MNIST's, the folder is not writable, or no mirror answers.
    """
    raw, processed = data_dir / "MNIST" / "raw", data_dir / "MNIST" / "processed"
    if processed.exists():
        raise RequestError(
            f"{processed} was made by an old torchvision. torchvision would read it instead of the verified files. "
            "Move it away, or name another folder with --data.data_dir."
        )
    missing = [name for name, md5 in UNPACKED_MD5.items() if not _verified(raw / name, md5)]
    if not missing:
        return
    new = not data_dir.exists()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".prepare-", dir=data_dir) as scratch:
            _unpack(Path(scratch), raw)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise RequestError(
            f"can't write MNIST to {data_dir}: {reason}. Name a writable folder with --data.data_dir."
        ) from error
    finally:
        if new and data_dir.is_dir() and not any(data_dir.iterdir()):
            data_dir.rmdir()


def load(data_dir: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read the official training or test set: images (N, 28, 28) uint8 and labels (N,) int64; N is 60,000 or 10,000."""
    dataset = MNIST(str(data_dir), train=train)
    return dataset.data, dataset.targets


def _unpack(scratch: Path, raw: Path) -> None:
    unpacked = scratch / "MNIST" / "raw"
    unpacked.mkdir(parents=True)
    for name, md5 in MNIST.resources:
        source = next((path for path in (raw / name, ARCHIVES / name) if _verified(path, md5)), None)
        if source is not None:
            shutil.copyfile(source, unpacked / name)
    _download_missing(scratch, raw)
    raw.mkdir(parents=True, exist_ok=True)
    for file in unpacked.iterdir():
        if not (raw / file.name).exists():
            file.replace(raw / file.name)


def _download_missing(root: Path, raw: Path) -> None:
    """Let torchvision download the missing archives, and unpack all four."""
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
    if not path.exists():
        return False
    if not path.is_file():
        raise RequestError(f"{path} is not a file. Move it away, or name another folder with --data.data_dir.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise RequestError(
            f"{path} is not MNIST's file: its MD5 is {found}, not {md5}. "
            "Move it away and it will be restored, or name another folder with --data.data_dir."
        )
    return True
