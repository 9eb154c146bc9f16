import errno
import functools
import hashlib
import http.server
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import transforms
from torchvision.datasets import MNIST

from mnist_amp.data import mnist
from mnist_amp.data.normalization import Normalization
from mnist_amp.errors import RequestError
from tests.conftest import Refused
from tests.forked import CONTEXT

KNOWN = {**mnist.UNPACKED_MD5, **dict(MNIST.resources)}
RAW = {f"MNIST/raw/{name}" for name in mnist.UNPACKED_MD5} | {f"MNIST/raw/{name}" for name, _ in MNIST.resources}


def raw_files(data_dir: Path) -> set[str]:
    return {path.relative_to(data_dir).as_posix() for path in data_dir.rglob("*") if path.is_file()}


def test_ships_the_published_archives() -> None:
    found = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in mnist.ARCHIVES.glob("*.gz")}
    assert found == dict(MNIST.resources)


@pytest.mark.parametrize(("train", "count"), [(True, 60_000), (False, 10_000)])
def test_every_pixel_equals_torchvisions(data_dir: Path, train: bool, count: int) -> None:
    images, labels = mnist.load(data_dir, train=train)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    theirs = MNIST(str(data_dir), train=train, transform=transform)
    assert len(images) == len(theirs) == count
    ours = Normalization()(images.unsqueeze(1))
    for index in range(count):
        image, label = theirs[index]
        assert torch.equal(ours[index], image), index
        assert labels[index] == label


def test_prepares_a_new_folder(tmp_path: Path) -> None:
    mnist.prepare(tmp_path / "new" / "data")
    assert raw_files(tmp_path / "new" / "data") == RAW


def test_missing_files_are_restored_and_the_others_are_unchanged(tmp_path: Path) -> None:
    mnist.prepare(tmp_path)
    kept = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    written = kept.stat().st_mtime_ns
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    mnist.prepare(tmp_path)
    assert raw_files(tmp_path) == RAW
    assert kept.stat().st_mtime_ns == written


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
NAME = "Name a writable folder with --data.data_dir."
ALTERED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "an archive cut short": (f"{IMAGES}.gz", lambda data: data[:100_000]),
    "an empty archive": (f"{LABELS}.gz", lambda data: b""),
    "a wrong magic number": (IMAGES, lambda data: b"\0\0\x08\x01" + data[4:]),
    "a wrong length": (IMAGES, lambda data: data[:-784]),
    "fewer labels than images": (LABELS, lambda data: b"\0\0\x08\x01\0\0\xc3\x50" + data[8:50_008]),
    "a digit over 9": (LABELS, lambda data: data[:100] + b"\x11" + data[101:]),
    "images that are all black": (IMAGES, lambda data: data[:16] + bytes(len(data) - 16)),
}


@pytest.mark.parametrize("case", ALTERED)
def test_altered_files_are_refused(refused: Refused, data_dir: Path, tmp_path: Path, case: str) -> None:
    name, alter = ALTERED[case]
    path = tmp_path / "mine" / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True)
    data = alter(((mnist.ARCHIVES if name.endswith(".gz") else data_dir / "MNIST" / "raw") / name).read_bytes())
    path.write_bytes(data)
    md5 = hashlib.md5(data).hexdigest()
    assert refused("fit", "--config=configs/smoke.yaml", "--data.data_dir=mine") == (
        f"mnist-amp: error: {path.relative_to(tmp_path)} is not MNIST's file: "
        f"its MD5 is {md5}, not {KNOWN[name]}. Move it away and it will be restored, or name another folder with "
        "--data.data_dir.\n"
    )
    assert raw_files(tmp_path) == {f"mine/MNIST/raw/{name}"}


def test_archives_that_are_swapped(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    shutil.copyfile(mnist.ARCHIVES / "t10k-labels-idx1-ubyte.gz", raw / f"{LABELS}.gz")
    with pytest.raises(RequestError, match=rf"{LABELS}.gz is not MNIST's file: its MD5 is"):
        mnist.prepare(tmp_path)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("file", f"can't write MNIST to file: it is not a folder. {NAME}"),
        ("file/x", f"can't write MNIST to file/x: Not a directory. {NAME}"),
        pytest.param(  # nobody can write there, not even root
            *("/proc/x", f"can't write MNIST to /proc/x: No such file or directory. {NAME}"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
        ),
        (
            "old",
            "old/MNIST/processed was made by an old torchvision. torchvision would read it instead of the verified "
            "files. Move it away, or name another folder with --data.data_dir.",
        ),
        ("odd", f"odd/MNIST/raw/{IMAGES} is not a file. Move it away, or name another folder with --data.data_dir."),
    ],
)
def test_unusable_folders_are_refused(refused: Refused, tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "odd" / "MNIST" / "raw" / IMAGES).mkdir(parents=True)
    (tmp_path / "old" / "MNIST" / "processed").mkdir(parents=True)
    for name in (MNIST.training_file, MNIST.test_file):
        (tmp_path / "old" / "MNIST" / "processed" / name).touch()
    assert refused("fit", "--config=configs/smoke.yaml", f"--data.data_dir={where}") == f"mnist-amp: error: {message}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "odd", "old"}


@pytest.mark.parametrize("names", [(), (MNIST.training_file,), (MNIST.test_file,), ("others",)])
def test_an_old_folder_that_torchvision_does_not_read_is_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir(parents=True)
    for name in names:
        (processed / name).write_bytes(b"not read")
    mnist.prepare(tmp_path)
    assert len(mnist.load(tmp_path, train=False)[1]) == 10_000
    assert raw_files(tmp_path) == RAW | {f"MNIST/processed/{name}" for name in names}


@pytest.fixture
def own(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder `own`, with MNIST in it, below the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_dir / "MNIST" / "raw", "own/MNIST/raw", copy_function=os.link)
    return Path("own")


@pytest.mark.parametrize("where", ["own", "own/MNIST", "own/MNIST/raw", "own/MNIST/raw/", "./own/MNIST", "own/MNIST/."])
def test_a_folder_one_or_two_levels_deep_means_the_same(own: Path, where: str) -> None:
    assert mnist.find_root(Path(where)) == own


@pytest.mark.parametrize(("where", "kept"), [("own/MNIST", ".gz"), ("own/MNIST/raw", "")])
def test_the_files_of_a_deeper_folder_are_used(own: Path, where: str, kept: str) -> None:
    for file in list((own / "MNIST" / "raw").iterdir()):
        if not file.name.endswith(kept):
            file.unlink()
    mnist.prepare(Path(where))
    assert raw_files(Path()) == {f"own/{name}" for name in RAW}
    assert len(mnist.load(Path(where), train=False)[1]) == 10_000


@pytest.mark.parametrize(
    ("inside", "where"), [("own", "MNIST"), ("own/MNIST", "raw"), ("own/MNIST", "."), ("own/MNIST/raw", ".")]
)
def test_a_folder_from_inside(own: Path, monkeypatch: pytest.MonkeyPatch, inside: str, where: str) -> None:
    root = own.absolute()
    monkeypatch.chdir(inside)
    assert mnist.find_root(Path(where)).resolve() == root


def test_an_empty_folder_of_that_name_is_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    mnist.prepare(tmp_path / "MNIST")
    assert raw_files(tmp_path) == {f"MNIST/{name}" for name in RAW}


@pytest.mark.parametrize(
    ("folder", "where", "name"),
    [
        ("FashionMNIST/raw", "FashionMNIST", IMAGES),
        ("FashionMNIST/raw", "FashionMNIST/raw", IMAGES),
        ("mine", "mine", f"{LABELS}.gz"),
        ("mine/raw", "mine", "train-images.idx3-ubyte"),
        ("mine", "mine", "emnist-letters-train-images-idx3-ubyte"),
    ],
)
def test_image_files_in_another_place_are_left_alone(
    refused: Refused, tmp_path: Path, folder: str, where: str, name: str
) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, name).write_bytes(b"mine")
    assert refused("fit", "--config=smoke.yaml", f"--data.data_dir={where}") == (
        f"mnist-amp: error: {folder} has the file {name}, but torchvision reads MNIST from a folder MNIST/raw. If "
        "these files are MNIST's, move them to such a folder; else name another folder with --data.data_dir.\n"
    )
    assert raw_files(tmp_path) == {f"{folder}/{name}"}


@pytest.mark.parametrize("where", ["own", "own/MNIST", "own/MNIST/raw"])
def test_own_images_are_not_mixed_with_mnist(refused: Refused, tmp_path: Path, where: str) -> None:
    raw = Path("own/MNIST/raw")
    raw.mkdir(parents=True)
    (raw / "train-images.idx3-ubyte").write_bytes(b"mine")
    assert refused("fit", "--config=smoke.yaml", f"--data.data_dir={where}") == (
        f"mnist-amp: error: {raw}/train-images.idx3-ubyte is not named as MNIST's files are, such as {IMAGES}. Rename "
        "it or move it away, or name another folder with --data.data_dir.\n"
    )
    (raw / "train-images.idx3-ubyte").rename(raw / IMAGES)
    md5 = hashlib.md5(b"mine").hexdigest()
    assert refused("fit", "--config=smoke.yaml", f"--data.data_dir={where}") == (
        f"mnist-amp: error: {raw}/{IMAGES} is not MNIST's file: its MD5 is {md5}, not {KNOWN[IMAGES]}. Move it away "
        "and it will be restored, or name another folder with --data.data_dir.\n"
    )
    assert raw_files(tmp_path) == {f"{raw}/{IMAGES}"}


def not_writable(number: int) -> Callable[..., Any]:
    """Return a TemporaryDirectory that can't be made in a given folder, as on a read-only file system."""
    make_folder = tempfile.TemporaryDirectory

    def make(prefix: str | None = None, dir: Path | None = None) -> Any:
        if dir is not None:
            raise OSError(number, os.strerror(number), str(dir))
        return make_folder(prefix=prefix)

    return make


@pytest.mark.parametrize(("number", "archives"), [(errno.EROFS, True), (errno.EACCES, False)])
def test_a_folder_that_is_not_writable_is_not_needed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data_dir: Path,
    number: int,
    archives: bool,
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, _ in MNIST.resources if archives else []:
        os.link(data_dir / "MNIST" / "raw" / name, raw / name)
    before = raw_files(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", not_writable(number))
    mnist.prepare(tmp_path)
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: can't write MNIST to {tmp_path}: {os.strerror(number)}. Each run unpacks it to a "
        "temporary folder instead.\n"
    )
    for train in (True, False):
        found, wanted = mnist.load(tmp_path, train=train), mnist.load(data_dir, train=train)
        assert all(map(torch.equal, found, wanted))
    assert raw_files(tmp_path) == before


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryDirectory", not_writable(errno.ENOSPC))
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path)
    assert str(error.value) == f"can't write MNIST to {tmp_path}: {os.strerror(errno.ENOSPC)}. {NAME}"


def test_a_folder_that_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, stat, access = tmp_path / "MNIST", Path.stat, os.access
    locked.mkdir()

    def refuse(path: Path, **settings: Any) -> os.stat_result:
        if locked in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **settings)

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and access(path, mode))
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path)
    assert str(error.value) == f"{locked} can't be read: Permission denied. Name another folder with --data.data_dir."


@pytest.mark.parametrize("name", [IMAGES, f"{IMAGES}.gz"])
def test_a_file_that_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    locked, opened = tmp_path / "MNIST" / "raw" / name, Path.open
    locked.parent.mkdir(parents=True)
    locked.touch()

    def refuse(path: Path, *args: Any, **settings: Any) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **settings)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path)
    assert str(error.value) == (
        f"{locked} can't be read: Permission denied. Move it away and it will be restored, or name another folder with "
        "--data.data_dir."
    )
    assert raw_files(tmp_path) == {f"MNIST/raw/{name}"}


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_refuses_an_altered_file_and_leaves_it(tmp_path: Path, name: str) -> None:
    altered = tmp_path / "MNIST" / "raw" / name
    altered.parent.mkdir(parents=True)
    altered.write_bytes(b"mine")
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path)
    assert str(error.value) == (
        f"{altered} is not MNIST's file: its MD5 is {hashlib.md5(b'mine').hexdigest()}, not {KNOWN[name]}. "
        "Move it away and it will be restored, or name another folder with --data.data_dir."
    )
    assert raw_files(tmp_path) == {f"MNIST/raw/{name}"}
    assert altered.read_bytes() == b"mine"


def test_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    occupied = tmp_path / "data"
    occupied.write_text("a file")
    with pytest.raises(RequestError) as error:
        mnist.prepare(occupied)
    assert str(error.value) == (
        f"can't write MNIST to {occupied}: it is not a folder. Name a writable folder with --data.data_dir."
    )


def test_processes_can_prepare_at_the_same_time(tmp_path: Path) -> None:
    with CONTEXT.Pool(3) as pool:
        pool.map(mnist.prepare, [tmp_path] * 3)
    assert raw_files(tmp_path) == RAW
    mnist.prepare(tmp_path)  # verifies


class Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    """Serve the four archives on this machine; yields the address."""
    handler = functools.partial(Mirror, directory=str(mnist.ARCHIVES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_fetches_a_missing_archive_from_the_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    monkeypatch.setattr(mnist, "ARCHIVES", tmp_path / "none")
    monkeypatch.setattr(MNIST, "mirrors", [mirror])
    mnist.prepare(tmp_path / "data")
    assert raw_files(tmp_path / "data") == RAW


def test_without_archive_and_mirror_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "ARCHIVES", tmp_path / "none")
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing listens there
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path / "data")
    text = str(error.value)
    assert text.startswith("the package's copy of MNIST is incomplete, and the download failed: ")
    assert "Put the four archives train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, " in text
    assert text.endswith(f"into {tmp_path / 'data' / 'MNIST' / 'raw'}.")
    assert raw_files(tmp_path / "data") == set()


def test_a_mirror_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror accepts the connection. Without a limit, urlopen would wait forever."""
    monkeypatch.setattr(mnist, "ARCHIVES", tmp_path / "none")
    monkeypatch.setattr(mnist, "MIRROR_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(MNIST, "mirrors", [address, address])
        with pytest.raises(RequestError, match="the download failed"):
            mnist.prepare(tmp_path / "data")
    assert socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []
