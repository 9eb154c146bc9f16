"""The user's own data set in four idx files that are named as MNIST's."""

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_amp.data.image_form import ImageForm, different_sizes
from mnist_amp.data.image_set import Facts, ImageSet, Source
from mnist_amp.errors import RequestError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PATTERN = re.compile(r"(train|t10k)-(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?")
BLOCK = 2**22  # bytes that are read together
DTYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}


class IdxPair(NamedTuple):
    """The files of the images and of the labels of the training or the test set."""

    images: Path
    labels: Path


def find_idx_files(folder: Path) -> tuple[IdxPair, IdxPair] | None:
    """Return the idx files of the training and test set in a folder or its folder `raw`; None if there are none.

    Raises:
        RequestError: the folder has some of the four files only.
    """
    for place in (folder, folder / "raw"):
        found = _named(place)
        if not found:
            continue
        missing = [name for name in NAMES if name not in found]
        if missing:
            raise RequestError(
                f"{place} has idx files, but not {' and '.join(missing)} (or .gz). Add what is missing, or name "
                "another folder with --data.folder."
            )
        paths = [found[name] for name in NAMES]
        return IdxPair(*paths[:2]), IdxPair(*paths[2:])
    return None


def _named(folder: Path) -> dict[str, Path]:
    """Return the idx files in a folder by their names in `NAMES`; an unpacked file comes before its archive."""
    paths = sorted(folder.iterdir(), key=lambda path: path.suffix != ".gz") if folder.is_dir() else []
    matching = [path for path in paths if PATTERN.fullmatch(path.name) and path.is_file()]
    return {path.name.removesuffix(".gz").replace(".", "-"): path for path in matching}


class IdxSource(Source):
    """A data set in four idx files.

    Args:
        train: the files of the training set.
        test: the files of the test set.
        form: the form that images are converted to.

    The number of classes is the largest training label + 1.
    """

    def __init__(self, train: IdxPair, test: IdxPair, form: ImageForm) -> None:
        self.pairs, self.form = {True: train, False: test}, form

    def prepare(self) -> None:
        self.facts()

    def facts(self) -> Facts:
        (count, *size), (test_count, *test_size) = (read_shape(self.pairs[train].images, 3) for train in (True, False))
        if self.form.size is None and size != test_size:
            examples = {(s[0], s[1]): str(self.pairs[train].images) for s, train in ((size, True), (test_size, False))}
            raise different_sizes(str(self.pairs[True].images.parent), examples)
        classes = self._checked_labels()
        return Facts(classes, self.form.shape(1, size[0], size[1]), count, test_count)

    def load(self, *, train: bool) -> ImageSet:
        self._checked_labels()
        pair = self.pairs[train]
        return ImageSet(read_images(pair.images, self.form), read_labels(pair.labels).long())

    def _checked_labels(self) -> tuple[str, ...]:
        """Return the names of the classes, after a check of the labels of both sets."""
        for pair in self.pairs.values():
            images, labels = read_shape(pair.images, 3)[0], read_shape(pair.labels, 1)[0]
            if images != labels:
                raise RequestError(
                    f"{pair.images} has {images:,} images, but {pair.labels} has {labels:,} labels. Each image needs a "
                    "label."
                )
        largest, test_largest = (int(read_labels(self.pairs[train].labels).max()) for train in (True, False))
        if test_largest > largest:
            raise RequestError(
                f"{self.pairs[False].labels} has the label {test_largest}, but the largest label of "
                f"{self.pairs[True].labels} is {largest}. Each class needs training images."
            )
        return tuple(map(str, range(largest + 1)))


def read_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the shape of an idx file of uint8 from its header.

    Raises:
        RequestError: it is not an idx file of uint8 with this number of dimensions, or it is empty.
    """
    with _opened(path) as file:
        return _read_header(file, path, dimensions)


def read_images(path: Path, form: ImageForm) -> Tensor:
    """Read the images (N, 1, H, W) of an idx file and convert them to a form; see `_blocks` for errors."""
    number, height, width = read_shape(path, 3)
    converted = (form.apply(block.unsqueeze(1)) for block in _blocks(path, 3))
    return _gathered(converted, (number, *form.shape(1, height, width)))


def read_labels(path: Path) -> Tensor:
    """Read the labels (N,) uint8 of an idx file; see `_blocks` for errors."""
    return _gathered(_blocks(path, 1), read_shape(path, 1))


def _gathered(blocks: Iterator[Tensor], shape: tuple[int, ...]) -> Tensor:
    data, done = torch.empty(shape, dtype=torch.uint8), 0
    for block in blocks:
        data[done : done + len(block)] = block
        done += len(block)
    return data


def _blocks(path: Path, dimensions: int) -> Iterator[Tensor]:
    """Yield the data of an idx file, some of the first dimension at a time.

    Raises:
        RequestError: as `read_shape`, or the file does not have the length that its header says.
    """
    with _opened(path) as file:
        shape = _read_header(file, path, dimensions)
        together = max(1, BLOCK // math.prod(shape[1:]))
        found = 0
        for start in range(0, shape[0], together):
            block = torch.empty(min(together, shape[0] - start), *shape[1:], dtype=torch.uint8)
            found += _fill(block, file)
            if found < (start + len(block)) * math.prod(shape[1:]):
                break
            yield block
        found += sum(map(len, iter(lambda: file.read(BLOCK), b"")))
    if found != math.prod(shape):
        raise RequestError(
            f"{path} has {found:,} bytes of data, but its header says {math.prod(shape):,}. Replace it by a complete "
            "file."
        )


def _fill(block: Tensor, file: io.BufferedIOBase) -> int:
    """Read from a file until a block is full or the file ends, and return the number of bytes."""
    flat: Any = block.reshape(-1).numpy()  # which numpy does not annotate as a buffer
    done = 0
    while count := file.readinto(flat[done:]):
        done += count
    return done


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open an idx file or its archive. Errors of the file in this context are errors for the user."""
    try:
        with path.open("rb") as archive:
            yield gzip.GzipFile(fileobj=archive) if path.suffix == ".gz" else archive
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"{path} can't be read: {reason}. Replace it by a complete file.") from error


def _read_header(file: io.BufferedIOBase, path: Path, dimensions: int) -> tuple[int, ...]:
    magic, sizes = file.read(4), file.read(4 * dimensions)
    if len(magic) + len(sizes) < 4 + 4 * dimensions or magic[:2] != b"\0\0" or magic[3] != dimensions:
        raise RequestError(f"{path} is not an idx file with {dimensions} dimensions. Replace it by one.")
    if magic[2] != 8:
        dtype = DTYPES.get(magic[2], f"type {magic[2]}")
        raise RequestError(f"{path} has values of {dtype}; images and labels must be uint8. Convert it.")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    if 0 in shape:
        raise RequestError(f"{path} is empty: its shape is {shape}. Replace it by a file with data.")
    return shape
