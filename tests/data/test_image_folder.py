import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.data import folder_source
from mnist_amp.data.decoding import SUFFIXES
from mnist_amp.data.image_folder import list_images
from mnist_amp.data.sources import Facts, Source, make_source
from mnist_amp.errors import RequestError
from mnist_amp.images.files import find_images
from tests.data.image_files import write_image


def source(folder: Path, **options: Any) -> Source:
    return make_source(Path("unused"), folder=folder, **options)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(RequestError) as error:
        source(folder, **options).facts()
    return str(error.value)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a folder with training and test images of two classes; the values tell the images apart."""
    for name, value in {"train/dog/b.png": 4, "train/dog/a.bmp": 3, "train/cat/x.PNG": 1, "test/dog/t.png": 9}.items():
        write_image(tmp_path / name, value)
    return tmp_path


def test_reads_train_and_test(two: Path) -> None:
    write_image(two / "train" / "cat" / ".hidden.png", 99)
    write_image(two / "train" / ".cache" / "a.png", 99)
    (two / "train" / "dog" / "notes.txt").write_text("no image")
    data = source(two)
    data.prepare()
    assert data.facts() == Facts(("cat", "dog"), (1, 4, 4), 3, 1)
    images, labels = data.load(train=True)
    assert images[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert labels.tolist() == [0, 1, 1]
    images, labels = data.load(train=False)
    assert (images[:, 0, 0, 0].tolist(), labels.tolist()) == ([9], [1])


def test_files_of_any_name_that_predict_reads(two: Path) -> None:
    for name, value in {"a": 21, "b.jfif": 22, "c.JPE": 23, "d.hif": 24}.items():
        write_image(two / "train" / "dog" / "written.png", value)
        (two / "train" / "dog" / "written.png").rename(two / "train" / "dog" / name)
    (two / "train" / "dog" / "LICENSE").write_text("no image", encoding="utf-8")
    (two / "train" / "dog" / "old").mkdir()
    assert source(two).load(train=True).images[:, 0, 0, 0].tolist() == [1, 21, 3, 22, 4, 23, 24]
    assert [path.name for path in find_images([str(two / "train" / "dog")]).files] == [
        *("a", "a.bmp", "b.jfif", "b.png", "c.JPE", "d.hif"),
    ]


def test_reads_while_a_trainer_evaluates(two: Path) -> None:
    with torch.inference_mode():
        assert source(two).load(train=True).images[:, 0, 0, 0].tolist() == [1, 3, 4]


def test_one_colour_image_makes_all_of_them_rgb(two: Path) -> None:
    write_image(two / "test" / "cat" / "a.png", (5, 6, 7))
    data = source(two)
    assert data.facts().image_shape == (3, 4, 4)
    assert data.load(train=True).images[0, :, 0, 0].tolist() == [1, 1, 1]
    assert data.load(train=False).images[0, :, 0, 0].tolist() == [5, 6, 7]
    assert source(two, channels=1).load(train=False).images[:, 0, 0, 0].tolist() == [6, 9]


def test_size_and_channels_given_open_no_file(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(folder_source, "read_header")
    data = source(two, image_size=(2, 3), channels=3)
    assert data.facts() == Facts(("cat", "dog"), (3, 2, 3), 3, 1)
    assert data.load(train=True).images.shape == (3, 3, 2, 3)


def test_different_sizes(two: Path) -> None:
    write_image(two / "test" / "dog" / "u.png", 0, (5, 6))
    assert refusal(two) == (
        f"{two} has images of different sizes (height x width): 4 x 4 (train/cat/x.PNG) and 5 x 6 (test/dog/u.png). "
        "Resize all images with --data.image_size, such as --data.image_size 64 or --data.image_size [48,64]."
    )
    assert source(two, image_size=4).load(train=False).images.shape == (2, 1, 4, 4)


def test_many_different_sizes(two: Path) -> None:
    for side in range(5, 9):
        write_image(two / "train" / "dog" / f"{side}.png", 0, (side, side))
    assert "4 x 4 (train/cat/x.PNG), 5 x 5 (train/dog/5.png), 6 x 6 (train/dog/6.png) and 2 other sizes. " in refusal(
        two
    )


def test_a_class_without_training_images(two: Path) -> None:
    write_image(two / "test" / "bird" / "a.png")
    assert refusal(two) == (
        f"{two}/test/bird is a class without training images: {two}/train has the classes cat, dog. Add "
        f"{two}/train/bird, or move the folder away."
    )


def test_a_class_without_images(two: Path) -> None:
    (two / "train" / "bird").mkdir()
    assert refusal(two) == (
        f"{two}/train/bird has no images ({', '.join(SUFFIXES)}). Each folder in {two}/train is a class: add images, "
        "or move the folder away."
    )


def test_a_single_class(two: Path) -> None:
    shutil.rmtree(two / "train" / "cat")
    assert refusal(two) == f"{two}/train has one class, dog. Add a folder for each other class."


def test_no_test_folder(two: Path) -> None:
    shutil.rmtree(two / "test")
    assert refusal(two) == (
        f"{two} has a folder train with images by class, but no folder test. Add the folder {two}/test, or name "
        f"{two}/train with --data.folder: its images are then split into both sets."
    )


def test_an_empty_test_folder(two: Path) -> None:
    shutil.rmtree(two / "test" / "dog")
    assert refusal(two) == f"{two}/test has no images by class. Add images such as {two}/test/cat/a.png."


def test_a_folder_without_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    assert refusal(tmp_path) == (
        f"{tmp_path} has no images by class. It must have a folder for each class, with images such as "
        f"{tmp_path}/cat/a.png ({', '.join(SUFFIXES)}), or the four files of MNIST's format. Name another folder with "
        "--data.folder."
    )


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "no") == f"{tmp_path}/no is not a folder. Name the folder of your images with --data.folder."
    )


def test_an_unreadable_image_is_named(two: Path) -> None:
    (two / "train" / "cat" / "x.PNG").write_bytes(b"no")
    assert refusal(two).startswith(f"{two}/train/cat/x.PNG can't be read as an image: ")
    with pytest.raises(RequestError, match=r"x\.PNG can't be read as an image: "):
        source(two, image_size=4, channels=1).load(train=True)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Return a folder with 25, 3 and 1 images of three classes."""
    for name, count in {"a": 25, "b": 3, "c": 1}.items():
        for index in range(count):
            write_image(tmp_path / "set" / name / f"{index:02}.png", index)
    return tmp_path / "set"


def names(folder: Path, seed: int) -> list[str]:
    return [sample.path.relative_to(folder).as_posix() for sample in list_images(folder, seed).test]


def test_a_tenth_of_each_class_is_the_test_set(one: Path) -> None:
    listing = list_images(one, 0)
    assert [sum(sample.label == label for sample in listing.test) for label in range(3)] == [2, 1, 0]
    assert len({sample.path for sample in listing.train + listing.test}) == len(listing.train + listing.test) == 29
    assert source(one).facts() == Facts(("a", "b", "c"), (1, 4, 4), 26, 3)


def test_the_split_depends_on_seed_and_names_alone(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "copy")
    assert names(one, 0) == names(tmp_path / "copy", 0) == ["a/10.png", "a/19.png", "b/02.png"]
    assert names(one, 1) == ["a/03.png", "a/08.png", "b/00.png"]


def test_one_image_of_each_class(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "x.png")
    write_image(tmp_path / "b" / "x.png")
    assert refusal(tmp_path) == f"{tmp_path} has one image of each class, so none is left for the test set. Add images."


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        for index in range(2):
            write_image(tmp_path / name / f"{index}.png")
    assert source(tmp_path).facts() == Facts(("bus", "train"), (1, 4, 4), 2, 2)
