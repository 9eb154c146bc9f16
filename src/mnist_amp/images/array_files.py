"""The user's images in arrays (`.npy`, `.npz`) and in tables of pixels (`.csv`), and the submission to Kaggle."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_amp.images.mnist_form import SIDE, ImageError
from mnist_amp.wording import counted

SUFFIXES = (".npy", ".npz", ".csv")
IMAGES = ("images", "x", "x_test", "test_images")  # names in a .npz file, the first that it has
LABELS = ("labels", "y", "y_test", "test_labels")
LABEL_COLUMNS = ("label", "class")
SHAPES = "(N, H, W), (N, H, W, C), (N, C, H, W), (H, W) or (N, 784), with 1, 3 or 4 channels"
PIXELS = SIDE * SIDE
NUMBERED = re.compile(r"[a-z_]*\d+|\d+x\d+")  # names of columns with the index of the pixel, or its row and column

Array = NDArray[Any]
Label = int | str


class Images(NamedTuple):
    """The images of a file.

    Attributes:
        pixels: (N, H, W) or (N, H, W, C), as in the file.
        white: the level of white, 1 or 255.
        labels: of the N images; None if the file has none.
    """

    pixels: Array
    white: int
    labels: Sequence[Label] | None

    def levels(self) -> Iterator[NDArray[np.uint8]]:
        """Yield each image, (H, W) or (H, W, C), with levels from 0 to 255."""
        for image in self.pixels:
            yield image if image.dtype == np.uint8 and self.white == 255 else _levels(image, 255 / self.white)


def read_arrays(path: Path) -> Images:
    """Read the images of a `.npy`, `.npz` or `.csv` file.

    - An array has a shape of SHAPES. Its values are from 0 to 1 or from 0 to 255.
    - Of a `.npz` file, the array named in IMAGES is read, or its only array; and that of LABELS, if there is one.
    - A `.csv` file has a row for each image, with the 784 pixels of 28 x 28, as that of Kaggle's "Digit Recognizer". A
      column `label` or `class` may come before or after them. If their names number the
      pixels, they must be row by row. Without a header, the first of 785 columns is the label.

    Raises:
        ImageError: the file has another form.

    Examples:
        >>> np.save("digits.npy", np.zeros((5, 28, 28)))
        >>> read_arrays(Path("digits.npy")).pixels.shape
        (5, 28, 28)
    """
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    try:
        return _read_numpy(path)
    except (ImageError, OSError, MemoryError):
        raise
    except Exception as error:  # damaged files cause errors of many types
        raise ImageError("damaged or not an array of numbers; save one with np.save or np.savez") from error


def submission(guesses: Sequence[str | None]) -> list[list[Any]]:
    """Return the rows of Kaggle's submission, the header first, for `atomic_files.write_table`.

    Args:
        guesses: the names of the guessed classes, in the order of the rows; None, where there is no guess, becomes 0,
            because Kaggle takes no empty cell.

    >>> submission(["7", "2"])
    [['ImageId', 'Label'], [1, '7'], [2, '2']]
    """
    return [["ImageId", "Label"], *([row, guess or "0"] for row, guess in enumerate(guesses, 1))]


def _read_numpy(path: Path) -> Images:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return _images(loaded, None)
    with loaded:
        names = {name.lower(): name for name in loaded.files}
        found = next((names[name] for name in IMAGES if name in names), None)
        if found is None and len(names) != 1:
            raise ImageError(f"name one of its arrays {IMAGES[0]}; it has {', '.join(loaded.files) or 'none'}")
        labels = next((loaded[names[name]] for name in LABELS if name in names), None)
        return _images(loaded[found or loaded.files[0]], labels)


def _read_csv(path: Path) -> Images:
    with path.open(encoding="utf-8-sig") as file:
        rows = file.readlines() or [""]
    first = [cell.strip(' "\n').lower() for cell in rows[0].split(",")]
    if has_header := not all(cell.isdigit() for cell in first):
        del rows[0]
    labelled = [at for at in (0, -1) if first[at] in LABEL_COLUMNS or (not has_header and len(first) > PIXELS)][:1]
    if len(first) != PIXELS + len(labelled) or not rows:
        columns = counted(len(first), "column")
        if has_header and labelled:
            columns = f"{first[labelled[0]]} and {counted(len(first) - 1, 'column')} of pixels"
        raise ImageError(
            f"{counted(len(rows), 'row')} of {columns}; a table of images has {PIXELS} columns of pixels, and at most "
            "one column, label, before or after them"
        )
    try:
        values = np.loadtxt(rows, np.uint8, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ImageError(f"pixels and labels must be whole numbers from 0 to 255: {error}") from error
    if values.shape[1] != len(first):
        raise ImageError(f"{len(first)} columns in the header, but {values.shape[1]} in the rows")
    if has_header:
        _check_order([name for name in first if name not in LABEL_COLUMNS])
    labels = values[:, labelled[0]] if labelled else None
    pixels = np.delete(values, labelled, axis=1) if labelled else values
    return _images(pixels.reshape(-1, SIDE, SIDE, 1), labels)


def _check_order(names: list[str]) -> None:
    """Check that columns are row by row if their names number all of them: `pixel0` to `pixel783`, `1x1` to `28x28`."""
    numbers = [tuple(map(int, re.findall(r"\d+", name))) for name in names if NUMBERED.fullmatch(name)]
    if len(set(numbers)) < PIXELS:  # other names do not tell the order
        return
    for (name, number), (next_name, next_number) in itertools.pairwise(zip(names, numbers, strict=True)):
        if next_number < number:
            raise ImageError(
                f"the column {next_name} comes after {name}, but the pixels must be row by row; sort the columns"
            )


def _images(pixels: Array, labels: Array | None) -> Images:
    """Return images from an array of any of the shapes and types."""
    pixels = _channels_last(pixels)
    if labels is None:
        return Images(pixels, _white(pixels), None)
    if labels.size != len(pixels) or labels.dtype.kind not in "iuU":
        raise ImageError(
            f"labels of shape {labels.shape} and type {labels.dtype} for {len(pixels)} images; each image has one "
            "label, a whole number or a name"
        )
    return Images(pixels, _white(pixels), labels.reshape(-1).tolist())


def _channels_last(array: Array) -> Array:
    """Return an array of images as (N, H, W) or (N, H, W, C), with 3 or 4 channels."""
    if array.ndim == 3 and array.shape[0] == 3:
        raise ImageError(
            "3 grey images or one in colour? Save grey images as (3, H, W, 1), an RGB image as (1, 3, H, W)"
        )
    if array.shape == (PIXELS, PIXELS):
        raise ImageError(
            f"{PIXELS} images of {SIDE} x {SIDE} or one of {PIXELS} x {PIXELS}? Save the images as ({PIXELS}, {SIDE}, "
            f"{SIDE}), one image as (1, {PIXELS}, {PIXELS})"
        )
    if array.ndim == 2:
        array = array.reshape(-1, SIDE, SIDE) if array.shape[1] == PIXELS else array[np.newaxis]
    elif array.ndim == 3 and array.shape[2] in (1, 3, 4):
        array = array[np.newaxis]
    if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = np.moveaxis(array, 1, 3)
    if array.ndim not in (3, 4) or array.size == 0 or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise ImageError(f"an array of shape {array.shape}; images have {SHAPES}")
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def _white(pixels: Array) -> int:
    """Return the level of white: 1 or 255."""
    if pixels.dtype == np.bool_:
        return 1
    if pixels.dtype.kind not in "iuf":
        raise ImageError(f"an array of type {pixels.dtype}; images have numbers from 0 to 1 or from 0 to 255")
    low, high = pixels.min().item(), pixels.max().item()
    white = 1 if high <= 1 else 255
    # in between, another scale is as likely, such as 0 to 16 or a normalised one
    if not (low >= 0 and high <= white) or (pixels.dtype != np.uint8 and 1 < high < 32):
        raise ImageError(f"values from {low:g} to {high:g}; images have values from 0 to 1 or from 0 to 255")
    return white


def _levels(image: Array, factor: float) -> NDArray[np.uint8]:
    return np.asarray((image * factor).round(), dtype=np.uint8)
