"""The folders that `predict --save_images` writes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_amp.data.image_folder import list_extra
from mnist_amp.errors import RequestError, RunError
from mnist_amp.inference.image_data import LoadedImage
from mnist_amp.inference.saved_images import SavedImages
from mnist_amp.reporting.contact_sheet import Tile
from tests.conftest import files

PIXELS = np.arange(784, dtype=np.uint8).reshape(28, 28)


def scored(name: str, guess: int, classes: int, note: str = "") -> tuple[LoadedImage, Tile]:
    """Return an image that the network takes for a class."""
    image = LoadedImage(Path(name), None, None, PIXELS[None])
    return image, Tile(name, PIXELS, [float(index == guess) for index in range(classes)], note)


def write(folder: Path, classes: tuple[str, ...], *images: tuple[LoadedImage, Tile]) -> str:
    return SavedImages(folder, classes).write([image for image, _ in images], [tile for _, tile in images])


@pytest.mark.parametrize(
    "classes",
    [("cat", "dog", "cat"), ("a/b", "a-b"), ("A", "a"), (".net", "..", ""), ("two\nlines", "b"), ("x" * 300, "b")],
)
def test_an_extra_folder_reads_what_was_written(tmp_path: Path, classes: tuple[str, ...]) -> None:
    images = [scored(f"{index}.png", index, len(classes)) for index in range(len(classes))]
    write(tmp_path / "mine", classes, *images)
    assert len(list((tmp_path / "mine").iterdir())) == len(classes)
    samples = list_extra(tmp_path / "mine", classes)
    assert sorted((sample.path.name, sample.label) for sample in samples) == [
        (f"{index + 1:04}-{index}.png", index) for index in range(len(classes))
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(samples[0].path)), PIXELS)


@pytest.mark.parametrize(("stem", "kept"), [("x" * 248, "x" * 120), ("é" * 124, "é" * 60), ("x" * 120, "x" * 120)])
def test_long_names_are_cut(tmp_path: Path, stem: str, kept: str) -> None:
    (tmp_path / f"{stem}.jpg").touch()  # a name that files may have
    write(tmp_path / "mine", ("a", "b"), scored(f"{stem}.jpg", 0, 2), scored(f"{stem}.jpg", 0, 2))
    assert files(tmp_path / "mine") == {f"a/0001-{kept}.png", f"a/0002-{kept}.png"}


def test_the_current_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    write(Path(), ("a", "b"), scored("1.png", 1, 2), scored("2.png", 0, 2, "unsure"))
    assert files(tmp_path) == {"mine/b/0001-1.png", "mine_check/a/0002-2.png"}
    for folder, message in (
        (Path(".."), f"{tmp_path} is not empty. Name a new folder with --save_images, so that no image that you have "),
        (Path("/"), "/ has no name. Name a new folder with --save_images."),
        (tmp_path / "mine_check/a/0002-2.png", f"{tmp_path}/mine_check/a/0002-2.png can't be used: "),
        (tmp_path / ("x" * 250), f"{tmp_path}/{'x' * 250}_check can't be used: "),
    ):
        with pytest.raises(RequestError) as error:
            SavedImages(folder, ("a", "b"))
        assert str(error.value).startswith(message)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError) as error:
        write(tmp_path / "mine", ("a", "b"), scored("1.png", 1, 2))
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'mine'} can't be written: disk full (")
    assert text.endswith(" MB free there).")
