"""Images in arrays and tables of pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_amp.images.array_files import SHAPES, Images, read_arrays, submission
from mnist_amp.images.files import read_frames
from mnist_amp.images.mnist_form import ImageError
from mnist_amp.runs.atomic_files import write_table

GREY = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 256
COLOUR = np.arange(2 * 8 * 9 * 3).reshape(2, 8, 9, 3) % 256


def saved(path: Path, array: Any) -> Images:
    np.save(path / "a.npy", array)
    return read_arrays(path / "a.npy")


def levels(images: Images) -> NDArray[np.uint8]:
    found = list(images.levels())
    assert {image.dtype for image in found} == {np.dtype(np.uint8)}
    return np.stack(found)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64])
def test_types_of_arrays(tmp_path: Path, kind: Any) -> None:
    np.testing.assert_array_equal(levels(saved(tmp_path, GREY.astype(kind))), GREY)
    if np.dtype(kind).kind == "f":
        np.testing.assert_array_equal(levels(saved(tmp_path, (GREY / 255).astype(kind))), GREY)
    np.testing.assert_array_equal(levels(saved(tmp_path, (GREY > 99).astype(kind))), (GREY > 99) * 255)


def test_an_array_of_truth_values(tmp_path: Path) -> None:
    np.testing.assert_array_equal(levels(saved(tmp_path, GREY > 99)), (GREY > 99) * 255)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (GREY[0], GREY[:1]),
        (GREY[0][..., None], GREY[:1]),
        (GREY[:1], GREY[:1]),
        (GREY.reshape(5, 784), GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (COLOUR[0], COLOUR[:1]),
    ],
)
def test_shapes_of_arrays(tmp_path: Path, array: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(levels(saved(tmp_path, array.astype(np.uint8))), expected)


RANGE = "images have values from 0 to 1 or from 0 to 255"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 8, 8), 16.0), f"values from 16 to 16; {RANGE}"),
        (np.linspace(-1, 1, 128).reshape(2, 8, 8), f"values from -1 to 1; {RANGE}"),
        (np.full((2, 8, 8), 65535), f"values from 65535 to 65535; {RANGE}"),
        (np.full((2, 8, 8), np.nan), f"values from nan to nan; {RANGE}"),
        (np.zeros((2, 8, 8), complex), "an array of type complex128; images have numbers from 0 to 1 or from 0 to 255"),
        (np.zeros((0, 8, 8)), f"an array of shape (0, 8, 8); images have {SHAPES}"),
        (np.zeros(784), f"an array of shape (784,); images have {SHAPES}"),
        (np.zeros((2, 8, 8, 2)), f"an array of shape (2, 8, 8, 2); images have {SHAPES}"),
        (
            np.zeros((3, 8, 8)),
            "3 grey images or one in colour? Save grey images as (3, H, W, 1), an RGB image as (1, 3, H, W)",
        ),
        (
            np.zeros((784, 784)),
            "784 images of 28 x 28 or one of 784 x 784? Save the images as (784, 28, 28), one image as (1, 784, 784)",
        ),
    ],
)
def test_arrays_that_are_unclear_are_refused(tmp_path: Path, array: NDArray[Any], message: str) -> None:
    with pytest.raises(ImageError) as error_info:
        saved(tmp_path, array)
    assert str(error_info.value) == message


def test_files_that_numpy_did_not_save(tmp_path: Path) -> None:
    """Pickled objects are not loaded: that would run code of the file."""
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("text", encoding="utf-8")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "cut.npz", GREY)
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:2000])
    np.savez_compressed(tmp_path / "overwritten.npz", GREY)
    content = (tmp_path / "overwritten.npz").read_bytes()
    (tmp_path / "overwritten.npz").write_bytes(content[:100] + b"7" * 100 + content[200:])
    for name in ("overwritten.npz", "objects.npy", "objects.npz", "text.npy", "empty.npz", "cut.npz"):
        with pytest.raises(ImageError) as error_info:
            list(read_frames(tmp_path / name))
        assert str(error_info.value) == "damaged or not an array of numbers; save one with np.save or np.savez", name


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({"images": GREY, "labels": range(5)}, [0, 1, 2, 3, 4]),
        (
            {"x_train": GREY[:2], "y_train": [8, 9], "x_test": GREY, "y_test": [[0], [1], [2], [3], [4]]},
            [0, 1, 2, 3, 4],
        ),
        ({"X": GREY, "Y": list("abcde")}, ["a", "b", "c", "d", "e"]),
        ({"arr_0": GREY}, None),
    ],
)
def test_arrays_of_a_npz_file(tmp_path: Path, names: dict[str, Any], labels: list[Any] | None) -> None:
    np.savez(tmp_path / "a.npz", **names)
    images = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(levels(images), GREY)
    assert images.labels == labels


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": GREY, "b": GREY}, "name one of its arrays images; it has a, b"),
        ({}, "name one of its arrays images; it has none"),
        (
            {"x": GREY, "y": [1, 2]},
            "labels of shape (2,) and type int64 for 5 images; each image has one label, a whole number or a name",
        ),
        (
            {"x": GREY, "y": np.zeros(5)},
            "labels of shape (5,) and type float64 for 5 images; each image has one label, a whole number or a name",
        ),
    ],
)
def test_npz_files_that_are_unclear_are_refused(tmp_path: Path, names: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **names)
    with pytest.raises(ImageError) as error_info:
        read_arrays(tmp_path / "a.npz")
    assert str(error_info.value) == message


def write_csv(path: Path, header: list[str], rows: NDArray[Any]) -> Path:
    lines = [",".join(map(str, row)) for row in ([header] if header else []) + rows.tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


PIXELS = GREY.reshape(5, 784)
LABELS = np.array([[7], [2], [1], [0], [4]])
KAGGLE = [f"pixel{index}" for index in range(784)]
SQUARES = [f"{row}x{column}" for row in range(1, 29) for column in range(1, 29)]


@pytest.mark.parametrize(
    ("header", "columns", "labels"),
    [
        (KAGGLE, [PIXELS], None),
        (["label", *KAGGLE], [LABELS, PIXELS], [7, 2, 1, 0, 4]),
        (["label", *SQUARES], [LABELS, PIXELS], [7, 2, 1, 0, 4]),
        ([*(f'"{name}"' for name in KAGGLE), '"class"'], [PIXELS, LABELS], [7, 2, 1, 0, 4]),
        ([], [LABELS, PIXELS], [7, 2, 1, 0, 4]),
        ([], [PIXELS], None),
        ([f"p{chr(97 + index % 26)}" for index in range(784)], [PIXELS], None),  # names do not tell the order
    ],
)
def test_tables_of_pixels(
    tmp_path: Path, header: list[str], columns: list[NDArray[Any]], labels: list[int] | None
) -> None:
    images = read_arrays(write_csv(tmp_path / "test.csv", header, np.hstack(columns)))
    np.testing.assert_array_equal(levels(images), GREY)
    assert images.labels == labels


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (KAGGLE[::-1], "pixel782 comes after pixel783"),
        (sorted(KAGGLE), "pixel11 comes after pixel109"),  # as text
        (["label", *KAGGLE[1:], KAGGLE[0]], "pixel0 comes after pixel783"),
        ([f"{column}x{row}" for row in range(28) for column in range(28)], "0x1 comes after 27x0"),  # column by column
    ],
)
def test_tables_with_columns_in_another_order_are_refused(tmp_path: Path, header: list[str], columns: str) -> None:
    rows = np.hstack([LABELS, PIXELS]) if header[0] == "label" else PIXELS
    with pytest.raises(ImageError) as error_info:
        read_arrays(write_csv(tmp_path / "a.csv", header, rows))
    assert str(error_info.value) == f"the column {columns}, but the pixels must be row by row; sort the columns"


@pytest.mark.parametrize("name", ["x{column}y{row}", "px{index:03x}", "mnist_784"])
def test_other_names_of_columns_do_not_tell_the_order(tmp_path: Path, name: str) -> None:
    header = [name.format(index=index, row=index // 28, column=index % 28) for index in range(784)]
    assert len(read_arrays(write_csv(tmp_path / "a.csv", header, PIXELS)).pixels) == len(PIXELS)


@pytest.mark.parametrize("rows", [1, 3])
def test_tables_of_few_rows(tmp_path: Path, rows: int) -> None:
    images = read_arrays(write_csv(tmp_path / "a.CSV", KAGGLE, PIXELS[:rows]))
    np.testing.assert_array_equal(levels(images), GREY[:rows])


def test_tables_of_something_else_are_refused(tmp_path: Path) -> None:
    wanted = "a table of images has 784 columns of pixels, and at most one column, label, before or after them"
    for header, rows, message in (
        (["file", "guess"], PIXELS[:, :2], f"5 rows of 2 columns; {wanted}"),
        (["label", *KAGGLE[1:]], PIXELS, f"5 rows of label and 783 columns of pixels; {wanted}"),
        (["id", *KAGGLE], np.hstack([LABELS, PIXELS]), f"5 rows of 785 columns; {wanted}"),
        (KAGGLE, np.hstack([LABELS, PIXELS]), "784 columns in the header, but 785 in the rows"),
        (KAGGLE, PIXELS + 1, "pixels and labels must be whole numbers from 0 to 255: "),
        (KAGGLE, PIXELS / 255, "pixels and labels must be whole numbers from 0 to 255: "),
    ):
        with pytest.raises(ImageError) as error_info:
            read_arrays(write_csv(tmp_path / "a.csv", header, rows))
        assert str(error_info.value)[: len(message)] == message
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(ImageError, match=r"^0 rows of 1 column; a table of images"):
        read_arrays(tmp_path / "a.csv")
    write_csv(tmp_path / "a.csv", KAGGLE, PIXELS[:0])
    with pytest.raises(ImageError, match=r"^0 rows of 784 columns; a table of images"):
        read_arrays(tmp_path / "a.csv")


def test_rows_become_frames(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=COLOUR.astype(np.uint8), y=["cat", "dog"])
    frames = list(read_frames(tmp_path / "a.npz"))
    assert [(frame.page, frame.label) for frame in frames] == [(1, "cat"), (2, "dog")]
    np.testing.assert_array_equal(np.stack([np.asarray(frame.image) for frame in frames]), COLOUR)
    np.save(tmp_path / "one.npy", GREY[:1].astype(np.uint8))
    (frame,) = read_frames(tmp_path / "one.npy")
    assert (frame.page, frame.label, frame.image.mode) == (None, None, "L")  # type: ignore[union-attr]


def test_submission(tmp_path: Path) -> None:
    write_table(tmp_path / "submission.csv", submission(["2", "0", None, "9"]))
    assert (tmp_path / "submission.csv").read_text(encoding="utf-8").splitlines() == [
        *("ImageId,Label", "1,2", "2,0", "3,0", "4,9"),
    ]
