import functools
import hashlib
import http.server
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision import transforms
from torchvision.datasets import MNIST

from mnist_amp.data import mnist
from mnist_amp.data.datamodule import normalize
from mnist_amp.errors import RequestError

RAW = {f"MNIST/raw/{name}" for name in mnist.UNPACKED_MD5} | {f"MNIST/raw/{name}" for name, _ in MNIST.resources}


def raw_files(data_dir: Path) -> set[str]:
    return {path.relative_to(data_dir).as_posix() for path in data_dir.rglob("*") if path.is_file()}


def test_ships_the_published_archives() -> None:
    found = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in mnist.ARCHIVES.glob("*.gz")}
    assert found == dict(MNIST.resources)


@pytest.mark.parametrize(("train", "count"), [(True, 60_000), (False, 10_000)])
def test_every_pixel_is_torchvisions(data_dir: Path, train: bool, count: int) -> None:
    images, labels = mnist.load(data_dir, train=train)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    theirs = MNIST(str(data_dir), train=train, transform=transform)
    assert len(images) == len(theirs) == count
    ours = normalize(images)
    for place in range(count):
        image, label = theirs[place]
        assert torch.equal(ours[place], image), place
        assert labels[place] == label


def test_prepares_a_new_folder(tmp_path: Path) -> None:
    mnist.prepare(tmp_path / "new" / "data")
    assert raw_files(tmp_path / "new" / "data") == RAW


def test_restores_what_is_missing_and_leaves_the_rest(tmp_path: Path) -> None:
    mnist.prepare(tmp_path)
    kept = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    written = kept.stat().st_mtime_ns
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    mnist.prepare(tmp_path)
    assert raw_files(tmp_path) == RAW
    assert kept.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_refuses_an_altered_file_and_leaves_it(tmp_path: Path, name: str) -> None:
    altered = tmp_path / "MNIST" / "raw" / name
    altered.parent.mkdir(parents=True)
    altered.write_bytes(b"mine")
    known = {**mnist.UNPACKED_MD5, **dict(MNIST.resources)}[name]
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path)
    assert str(error.value) == (
        f"{altered} is not MNIST's file: its MD5 is {hashlib.md5(b'mine').hexdigest()}, not {known}. "
        "Move it away to have it restored, or name another folder with --data.data_dir."
    )
    assert raw_files(tmp_path) == {f"MNIST/raw/{name}"}
    assert altered.read_bytes() == b"mine"


def test_says_where_it_can_not_write(tmp_path: Path) -> None:
    occupied = tmp_path / "data"
    occupied.write_text("a file")
    with pytest.raises(RequestError) as error:
        mnist.prepare(occupied)
    assert str(error.value) == (
        f"can't write MNIST to {occupied}: it is not a folder. Name a folder that can be written with --data.data_dir."
    )


def test_processes_at_once_do_no_harm(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
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


def test_says_what_to_do_without_archive_and_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "ARCHIVES", tmp_path / "none")
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing listens there
    with pytest.raises(RequestError) as error:
        mnist.prepare(tmp_path / "data")
    text = str(error.value)
    assert text.startswith("MNIST is not complete in the package and could not be downloaded.")
    assert "Put the four archives train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, " in text
    assert text.endswith(f"into {tmp_path / 'data' / 'MNIST' / 'raw'}.")
    assert raw_files(tmp_path / "data") == set()
