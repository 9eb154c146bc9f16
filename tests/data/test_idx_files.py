from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_amp.data.sources import Facts, Source, make_source
from mnist_amp.errors import RequestError
from tests.data.image_files import counting, write_idx

TRAIN, TEST = counting(3, 4, 5), counting(2, 4, 5)[::-1]
LABELS, TEST_LABELS = np.array([0, 2, 1], np.uint8), np.array([2, 0], np.uint8)


def write(folder: Path, names: Callable[[str], str] = str) -> None:
    write_idx(folder / names("train-images-idx3-ubyte"), TRAIN)
    write_idx(folder / names("train-labels-idx1-ubyte"), LABELS)
    write_idx(folder / names("t10k-images-idx3-ubyte"), np.ascontiguousarray(TEST))
    write_idx(folder / names("t10k-labels-idx1-ubyte"), TEST_LABELS)


def source(folder: Path, image_size: int | None = None) -> Source:
    return make_source(Path("unused"), folder=folder, image_size=image_size)


def refusal(folder: Path) -> str:
    with pytest.raises(RequestError) as error:
        source(folder).facts()
    return str(error.value)


@pytest.mark.parametrize("place", ["", "raw"])
@pytest.mark.parametrize(
    "names", [str, "{}.gz".format, lambda name: name.replace("-idx", ".idx")], ids=["dashes", "gz", "dots"]
)
def test_reads_the_four_files(tmp_path: Path, place: str, names: Callable[[str], str]) -> None:
    write(tmp_path / place, names)
    data = source(tmp_path)
    data.prepare()
    assert data.facts() == Facts(("0", "1", "2"), (1, 4, 5), 3, 2)
    images, labels = data.load(train=True)
    assert torch.equal(images, torch.from_numpy(TRAIN).unsqueeze(1))
    assert (labels.dtype, labels.tolist()) == (torch.int64, [0, 2, 1])
    images, labels = data.load(train=False)
    assert torch.equal(images, torch.from_numpy(TEST.copy()).unsqueeze(1))
    assert labels.tolist() == [2, 0]


def test_sizes_that_differ_are_resized(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", counting(2, 6, 6))
    assert refusal(tmp_path) == (
        f"{tmp_path} has images of different sizes (height x width): 4 x 5 ({tmp_path}/train-images-idx3-ubyte) and "
        f"6 x 6 ({tmp_path}/t10k-images-idx3-ubyte). Resize all images with --data.image_size, such as "
        "--data.image_size 64 or --data.image_size [48,64]."
    )
    data = source(tmp_path, 3)
    assert data.facts().image_shape == (1, 3, 3)
    assert data.load(train=False).images.shape == (2, 1, 3, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert refusal(tmp_path) == (
        f"{tmp_path} has idx files, but not t10k-labels-idx1-ubyte (or .gz). Add what is missing, or name another "
        "folder with --data.folder."
    )


def test_fewer_labels_than_images(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS[:2])
    assert refusal(tmp_path) == (
        f"{tmp_path}/train-images-idx3-ubyte has 3 images, but {tmp_path}/train-labels-idx1-ubyte has 2 labels. Each "
        "image needs a label."
    )


def test_a_test_label_without_training_images(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 3], np.uint8))
    assert refusal(tmp_path) == (
        f"{tmp_path}/t10k-labels-idx1-ubyte has the label 3, but the largest label of "
        f"{tmp_path}/train-labels-idx1-ubyte is 2. Each class needs training images."
    )


def test_another_dtype(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", TRAIN.astype(">f4"), kind=13)
    assert refusal(tmp_path) == (
        f"{tmp_path}/train-images-idx3-ubyte has values of float32; images and labels must be uint8. Convert it."
    )


def test_another_number_of_dimensions(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", TRAIN[0])
    assert refusal(tmp_path) == (
        f"{tmp_path}/train-images-idx3-ubyte is not an idx file with 3 dimensions. Replace it by one."
    )


def test_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", TRAIN[:0])
    assert refusal(tmp_path) == (
        f"{tmp_path}/train-images-idx3-ubyte is empty: its shape is (0, 4, 5). Replace it by a file with data."
    )


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError) as error:
        source(tmp_path).load(train=True)
    assert str(error.value) == (f"{path} has 59 bytes of data, but its header says 60. Replace it by a complete file.")


def test_an_archive_that_is_cut_short(tmp_path: Path) -> None:
    write(tmp_path, "{}.gz".format)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert refusal(tmp_path).startswith(f"{path} can't be read: ")
