# ruff: noqa: E501 - messages stand in a line as they are printed
import bz2
import functools
import gzip
import hashlib
import http.server
import importlib.util
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from mnist_amp.data import downloads
from mnist_amp.data.sources import Facts, Source, make_source
from mnist_amp.data.torchvision_sets import SPECS
from mnist_amp.errors import RequestError
from tests.data.image_files import counting, write_idx, write_image

TRAIN, TEST = counting(3, 28, 28), counting(2, 28, 28)
LABELS, TEST_LABELS = np.array([0, 9, 1], np.uint8), np.array([2, 0], np.uint8)
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refusal(source: Source) -> str:
    with pytest.raises(RequestError) as error:
        source.prepare()
    return str(error.value)


def write_mnist_like(raw: Path, suffix: str = "") -> None:
    for name, array in zip(NAMES, (TRAIN, LABELS, TEST, TEST_LABELS), strict=True):
        write_idx(raw / f"{name}{suffix}", array)


def test_every_name_is_torchvisions() -> None:
    assert [name for name in SPECS if not hasattr(datasets, name)] == []


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_mnist_like(tmp_path: Path, name: str) -> None:
    write_mnist_like(tmp_path / name / "raw")
    before = files(tmp_path)
    source = make_source(tmp_path, name)
    source.prepare()
    assert source.facts() == Facts(tuple(getattr(datasets, name).classes), (1, 28, 28), 3, 2)
    images, labels = source.load(train=True)
    assert torch.equal(images, torch.from_numpy(TRAIN).unsqueeze(1))
    assert labels.tolist() == [0, 9, 1]
    images, labels = source.load(train=False)
    assert torch.equal(images, torch.from_numpy(TEST).unsqueeze(1))
    assert labels.tolist() == [2, 0]
    assert files(tmp_path) == before


def test_size_and_channels_of_a_named_set(tmp_path: Path) -> None:
    write_mnist_like(tmp_path / "KMNIST" / "raw")
    source = make_source(tmp_path, "torchvision.datasets.KMNIST", image_size=(4, 5), channels=3)
    assert source.facts().image_shape == (3, 4, 5)
    assert source.load(train=True).images.shape == (3, 3, 4, 5)


def test_qmnist_has_its_labels_in_the_first_column(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    for split, images in (("train", TRAIN), ("test", TEST)):
        labels = np.full((len(images), 8), 77, ">i4")
        labels[:, 0] = range(len(images))
        write_idx(raw / f"qmnist-{split}-images-idx3-ubyte", images)
        write_idx(raw / f"qmnist-{split}-labels-idx2-int", labels, kind=12)
    source = make_source(tmp_path, "QMNIST")
    source.prepare()
    assert source.facts() == Facts(tuple("0123456789"), (1, 28, 28), 3, 2)
    assert source.load(train=True).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("split", "first", "classes"), [("letters", 1, 26), ("digits", 0, 10), ("balanced", 0, 47)])
def test_emnist_is_upright_and_its_labels_count_from_0(tmp_path: Path, split: str, first: int, classes: int) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    for part, array in (("train", TRAIN), ("test", TEST)):
        write_idx(raw / f"emnist-{split}-{part}-images-idx3-ubyte", array)
        write_idx(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", np.arange(len(array), dtype=np.uint8) + first)
    source = make_source(tmp_path, "EMNIST", {"split": split})
    source.prepare()
    assert source.facts()[1:] == ((1, 28, 28), 3, 2)
    assert len(source.facts().classes) == classes
    assert source.facts().classes[0] == ("a" if split == "letters" else "0")
    images, labels = source.load(train=True)
    assert torch.equal(images[:, 0], torch.from_numpy(TRAIN).transpose(1, 2))
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("arguments", [{}, {"split": "capitals"}])
def test_emnist_needs_a_split(tmp_path: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(RequestError) as error:
        make_source(tmp_path, "EMNIST", arguments)
    assert str(error.value) == (
        "EMNIST has the splits byclass, bymerge, balanced, letters, digits, mnist. Choose one, such as "
        """--data.dataset_args '{"split": "letters"}'."""
    )


def test_usps(tmp_path: Path) -> None:
    pixels = " ".join(f"{index + 1}:{-1 if index else 1}" for index in range(256))
    (tmp_path / "usps.bz2").write_bytes(bz2.compress(f"1 {pixels}\n10 {pixels}\n".encode()))
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress(f"3 {pixels}\n".encode()))
    source = make_source(tmp_path, "USPS")
    source.prepare()
    assert source.facts() == Facts(tuple("0123456789"), (1, 16, 16), 2, 1)
    images, labels = source.load(train=True)
    assert images[0, 0, 0, :3].tolist() == [255, 0, 0]
    assert labels.tolist() == [0, 9]


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, cls: Any, key: str, count: int) -> np.ndarray:
    """Write a tiny CIFAR, give torchvision its checksums, and return the training images (N, 3, 32, 32)."""
    images = counting(2 * len(cls.train_list), 3, 32, 32)
    folder /= cls.base_folder
    folder.mkdir()
    for index, (name, _) in enumerate(cls.train_list):
        batch = {"data": images[2 * index : 2 * index + 2].reshape(2, -1), key: [0, count - 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / cls.test_list[0][0]).write_bytes(pickle.dumps({"data": images[:1].reshape(1, -1), key: [1]}))
    names = {cls.meta["key"]: [f"class {index}" for index in range(count)]}
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps(names))
    for attribute in ("train_list", "test_list"):
        verified = [[name, md5(folder / name)] for name, _ in getattr(cls, attribute)]
        monkeypatch.setattr(cls, attribute, verified)
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / cls.meta["filename"])})
    return images


@pytest.mark.parametrize(
    ("cls", "key", "count"), [(datasets.CIFAR10, "labels", 10), (datasets.CIFAR100, "fine_labels", 100)]
)
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: Any, key: str, count: int) -> None:
    expected = write_cifar(tmp_path, monkeypatch, cls, key, count)
    source = make_source(tmp_path, cls.__name__)
    source.prepare()
    assert source.facts() == Facts(tuple(f"class {i}" for i in range(count)), (3, 32, 32), len(expected), 1)
    images, labels = source.load(train=True)
    assert torch.equal(images, torch.from_numpy(expected))
    assert images.is_contiguous()
    assert labels.tolist() == [0, count - 1] * (len(expected) // 2)


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="torchvision reads SVHN with scipy")
def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat  # type: ignore[import-untyped,unused-ignore]

    images, splits = counting(2, 3, 32, 32), {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": np.array([[10], [3]], np.uint8)})
        splits[split] = ["unused", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    source = make_source(tmp_path, "SVHN")
    source.prepare()
    assert source.facts() == Facts(tuple("0123456789"), (3, 32, 32), 2, 2)
    loaded, labels = source.load(train=True)
    assert torch.equal(loaded, torch.from_numpy(images))
    assert labels.tolist() == [0, 3]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.mat").write_bytes(b"")
    split = ["unused", "train.mat", md5(tmp_path / "train.mat")]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"train": split, "test": split})
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    message = "SVHN needs the package scipy. Install it: pip install scipy."
    assert refusal(make_source(tmp_path, "SVHN")) == message


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, images = tmp_path / "stl10_binary", counting(2, 3, 96, 96)
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 10]))
    (folder / "unlabeled_X.bin").write_bytes(b"")
    names = [f"class {index}" for index in range(10)]
    (folder / "class_names.txt").write_text("\n".join(names))
    for attribute in ("train_list", "test_list"):
        verified = [[name, md5(folder / name)] for name, _ in getattr(datasets.STL10, attribute)]
        monkeypatch.setattr(datasets.STL10, attribute, verified)
    source = make_source(tmp_path, "STL10")
    source.prepare()
    assert source.facts() == Facts(tuple(names), (3, 96, 96), 2, 2)
    loaded, labels = source.load(train=False)
    assert torch.equal(loaded, torch.from_numpy(images))
    assert labels.tolist() == [0, 9]


def test_a_set_of_image_files(tmp_path: Path) -> None:
    folder = tmp_path / "imagenette2-160"
    for index, name in enumerate(("n01440764", "n02102040")):
        for split in ("train", "val"):
            write_image(folder / split / name / "a.jpeg", (80 * index, 80 * index, 80 * index), (8, 8 + index))
    (tmp_path / "imagenette2-160" / "train" / "n01440764" / "a.jpeg").rename(
        tmp_path / "imagenette2-160" / "train" / "n01440764" / "a.JPEG"
    )
    source = make_source(tmp_path, "Imagenette", {"size": "160px"}, image_size=4)
    source.prepare()
    assert source.facts() == Facts(("tench", "English springer"), (3, 4, 4), 2, 2)
    with torch.inference_mode():  # while a trainer evaluates
        images, labels = source.load(train=True)
    assert images[:, :, 0, 0].tolist() == [[0, 0, 0], [80, 80, 80]]
    assert labels.tolist() == [0, 1]
    with pytest.raises(RequestError) as error:
        make_source(tmp_path, "Imagenette", {"size": "160px"}).load(train=True)
    assert str(error.value) == (
        "The training set of Imagenette has images of different sizes (height x width): 8 x 8 (image 0 of the training "
        "set) and 8 x 9 (image 1). Resize all images with --data.image_size, such as --data.image_size 64 or "
        "--data.image_size [48,64]."
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Imagenette", {"siz": "160px"}, "data.dataset_args has siz, but Imagenette has no such argument (did you mean size?); it takes size."),
        ("CIFAR10", {"size": 3}, "data.dataset_args has size, but CIFAR10 has no such argument; it takes none."),
        ("SVHN", {"split": "extra"}, "data.dataset_args sets split, which the command sets itself for SVHN. Leave it out."),
        ("KMNIST", {"transform": None}, "data.dataset_args sets transform, which the command sets itself for KMNIST. Leave it out."),
    ],
)  # fmt: skip
def test_arguments(tmp_path: Path, name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        make_source(tmp_path, name, arguments)
    assert str(error.value) == message


def test_a_value_that_the_class_refuses(tmp_path: Path) -> None:
    message = refusal(make_source(tmp_path / "new", "Imagenette", {"size": "tiny"}))
    assert message.startswith(
        f"Imagenette can't be read from {tmp_path}/new with data.dataset_args {{'size': 'tiny'}}: "
    )
    assert not (tmp_path / "new").exists()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a server that torchvision downloads a tiny KMNIST from."""
    folder = tmp_path / "mirror"
    write_mnist_like(folder, ".gz")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.KMNIST, "resources", [(f"{name}.gz", md5(folder / f"{name}.gz")) for name in NAMES])
    yield folder
    server.shutdown()
    server.server_close()


COMPLETE = {f"KMNIST/raw/{name}{suffix}" for name in NAMES for suffix in ("", ".gz")}


def test_downloads(tmp_path: Path, mirror: Path) -> None:
    source = make_source(tmp_path / "data", "KMNIST")
    source.prepare()
    assert files(tmp_path / "data") == COMPLETE
    assert source.load(train=True).labels.tolist() == [0, 9, 1]


def test_an_archive_that_is_there_is_used_and_others_are_downloaded(tmp_path: Path, mirror: Path) -> None:
    raw = tmp_path / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    (mirror / f"{NAMES[0]}.gz").rename(raw / f"{NAMES[0]}.gz")
    make_source(tmp_path / "data", "KMNIST").prepare()
    assert files(tmp_path / "data") == COMPLETE
    assert not (raw / f"{NAMES[0]}.gz").is_symlink()


def test_another_file_of_the_same_name_is_kept(tmp_path: Path, mirror: Path) -> None:
    file = tmp_path / "data" / "KMNIST" / "raw" / f"{NAMES[0]}.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"mine", mtime=0))
    mine, theirs = md5(file), md5(mirror / file.name)
    assert refusal(make_source(tmp_path / "data", "KMNIST")) == (
        f"{file} is not KMNIST's file: its MD5 is {mine}, not {theirs}. Move it away and it will be downloaded, or name "
        "another folder with --data.data_dir."
    )
    assert files(tmp_path / "data") == {f"KMNIST/raw/{NAMES[0]}.gz"}
    assert md5(file) == mine


def test_a_changed_file_is_kept(tmp_path: Path, mirror: Path) -> None:
    file = tmp_path / "data" / "KMNIST" / "raw" / NAMES[0]
    write_idx(file, TRAIN[:1])
    mine = md5(file)
    make_source(tmp_path / "data", "KMNIST").prepare()
    assert files(tmp_path / "data") == COMPLETE
    assert md5(file) == mine


def test_a_download_that_fails_lists_all_files(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    message = refusal(make_source(tmp_path / "data", "KMNIST"))
    assert message.startswith("KMNIST can't be downloaded: ")
    assert message.endswith(f". Put {', '.join(f'{name}.gz' for name in NAMES)} into {tmp_path}/data/KMNIST/raw.")
    assert not (tmp_path / "data").exists()


def test_a_download_with_another_checksum_is_refused(tmp_path: Path, mirror: Path) -> None:
    (mirror / f"{NAMES[1]}.gz").write_bytes(gzip.compress(b"another"))
    message = refusal(make_source(tmp_path / "data", "KMNIST"))
    names = ", ".join(f"{name}.gz" for name in NAMES[1:])
    assert message.endswith(f"Put {names} into {tmp_path}/data/KMNIST/raw.")


def test_a_set_that_is_not_downloaded(tmp_path: Path) -> None:
    message = refusal(make_source(tmp_path, "FER2013"))
    assert message.startswith(f"FER2013 can't be read from {tmp_path}: ")
    assert message.endswith(". Put its complete files there, or name another folder with --data.data_dir.")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert refusal(make_source(tmp_path / "data", "KMNIST")) == (
        f"can't write KMNIST to {tmp_path}/data: it is not a folder. Name a writable folder with --data.data_dir."
    )


def test_processes_that_prepare_at_the_same_time(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, download = [], downloads.Downloader.download_url

    def counted(self: downloads.Downloader, *args: Any, **options: Any) -> None:
        made.append(args)
        download(self, *args, **options)

    monkeypatch.setattr(downloads.Downloader, "download_url", counted)
    threads = [threading.Thread(target=make_source(tmp_path / "data", "KMNIST").prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(tmp_path / "data") == COMPLETE
    assert len(made) == 4


PUBLISHED = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_published_fashion_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in PUBLISHED.iterdir():
        if archive.suffix == ".gz":  # Debian compresses the files again, so their checksums are others
            (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    source = make_source(tmp_path, "FashionMNIST")
    source.prepare()
    assert source.facts()[1:] == ((1, 28, 28), 60_000, 10_000)
    assert source.load(train=False).labels.bincount().tolist() == [1000] * 10
