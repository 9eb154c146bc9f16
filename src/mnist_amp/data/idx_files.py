"""The user's own data set in four idx files that are named as MNIST's."""

import gzip
import io
import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_amp.data.image_form import ImageForm, different_sizes
from mnist_amp.data.image_set import Facts, ImageSet
from mnist_amp.errors import RequestError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PATTERN = re.compile(r"(train|t10k)-(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?")
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


class IdxSource:
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
        return ImageSet(self.form.apply(read_idx(pair.images, 3).unsqueeze(1)), read_idx(pair.labels, 1).long())

    def _checked_labels(self) -> tuple[str, ...]:
        """Return the names of the classes, after a check of the labels of both sets."""
        for pair in self.pairs.values():
            images, labels = read_shape(pair.images, 3)[0], read_shape(pair.labels, 1)[0]
            if images != labels:
                raise RequestError(
                    f"{pair.images} has {images:,} images, but {pair.labels} has {labels:,} labels. Each image needs a "
                    "label."
                )
        largest, test_largest = (int(read_idx(self.pairs[train].labels, 1).max()) for train in (True, False))
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
    return _read(path, dimensions, with_data=False)[0]


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of uint8; see `read_shape` for errors. It must also have the length that its header says."""
    shape, data = _read(path, dimensions, with_data=True)
    if len(data) != math.prod(shape):
        raise RequestError(
            f"{path} has {len(data):,} bytes of data, but its header says {math.prod(shape):,}. Replace it by a "
            "complete file."
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).reshape(shape)


def _read(path: Path, dimensions: int, *, with_data: bool) -> tuple[tuple[int, ...], bytes]:
    try:
        with path.open("rb") as archive:
            file = gzip.GzipFile(fileobj=archive) if path.suffix == ".gz" else archive
            return _read_header(file, path, dimensions), file.read() if with_data else b""
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
