"""Image files in the form that a network takes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.sources import make_source
from mnist_amp.errors import RequestError
from mnist_amp.images.data_form import is_ink_on_paper
from mnist_amp.images.files import read_frames
from mnist_amp.images.mnist_form import ImageError
from mnist_amp.images.readers import (
    DARK_ON_LIGHT,
    Prepared,
    Preprocess,
    Shape,
    is_dark_on_light,
    make_reader,
    preprocess_for,
)
from tests.images.test_mnist_form import SEVEN


def prepared(path: Path, preprocess: Preprocess, shape: Shape, *, ink_on_paper: bool = False) -> Prepared:
    """Return the only image of a file as a reader prepares it."""
    image = next(read_frames(path, shrink=False)).image
    assert isinstance(image, Image.Image)
    (found,) = make_reader(preprocess, shape, ink_on_paper=ink_on_paper)(image)
    return found


def pixels_of(path: Path, preprocess: Preprocess, shape: Shape) -> NDArray[np.uint8]:
    found = prepared(path, preprocess, shape)
    assert found.notes == ()
    return found.pixels


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.moveaxis(np.asarray(image), 2, 0)


def gradient(height: int, width: int) -> Image.Image:
    """Return an image whose red is the column, and whose green is the row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_resize_covers_the_size_and_cuts_what_stands_out(tmp_path: Path) -> None:
    gradient(100, 200).save(tmp_path / "wide.png")
    pixels = pixels_of(tmp_path / "wide.png", "resize", (3, 50, 50))
    assert pixels.shape == (3, 50, 50)
    assert pixels.dtype == np.uint8
    # columns 50 to 149 are left; a pixel is the mean of about two
    assert [int(level) for level in (pixels[0, 25, 0], pixels[0, 25, -1])] == pytest.approx([50.5, 148.5], abs=1)
    assert [int(level) for level in (pixels[1, 0, 25], pixels[1, -1, 25])] == pytest.approx([0.5, 98.5], abs=1)


def test_resize_is_antialiased(tmp_path: Path) -> None:
    """A pattern finer than a pixel becomes grey."""
    levels = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "fine.png")
    pixels = pixels_of(tmp_path / "fine.png", "resize", (1, 32, 32))
    assert pixels.shape == (1, 32, 32)
    assert np.abs(pixels.astype(int) - 127).max() <= 3


def test_resize_turns_an_image_as_its_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(40, 40).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif.tobytes())
    np.testing.assert_array_equal(
        pixels_of(tmp_path / "turned.png", "resize", (3, 40, 40)), channels_first(gradient(40, 40))
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_resize_gives_the_pixels_that_training_on_a_folder_gives(
    tmp_path: Path, mode: str, channels: Literal[1, 3]
) -> None:
    image = gradient(60, 90)
    for number, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / name).mkdir(parents=True)
        if mode == "I;16":
            Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 16).save(tmp_path / name / "1.png")
        else:
            image.rotate(90 * number).convert(mode).save(tmp_path / name / "1.png")
    source = make_source(tmp_path, folder=tmp_path, image_size=(20, 30), channels=channels)
    images = source.load(train=False).images
    for index, name in enumerate(("test/a", "test/b")):
        np.testing.assert_array_equal(pixels_of(tmp_path / name / "1.png", "resize", (channels, 20, 30)), images[index])


def test_none_takes_images_of_the_size_only(tmp_path: Path) -> None:
    gradient(32, 24).save(tmp_path / "image.png")
    np.testing.assert_array_equal(
        pixels_of(tmp_path / "image.png", "none", (3, 32, 24)), channels_first(gradient(32, 24))
    )
    grey = pixels_of(tmp_path / "image.png", "none", (1, 32, 24))
    np.testing.assert_array_equal(grey[0], gradient(32, 24).convert("L"))
    with pytest.raises(ImageError, match=r"^not 24 x 32 pixels; leave out --preprocess none$"):
        pixels_of(tmp_path / "image.png", "none", (3, 24, 32))
    opaque = gradient(32, 24).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(
        pixels_of(tmp_path / "opaque.png", "none", (3, 32, 24)), channels_first(gradient(32, 24))
    )
    opaque.putpixel((3, 3), (0, 0, 0, 254))
    opaque.save(tmp_path / "clear.png")
    with pytest.raises(ImageError, match=r"^transparent parts; leave out --preprocess none$"):
        pixels_of(tmp_path / "clear.png", "none", (3, 32, 24))


def test_none_notes_dark_ink_on_light_paper(tmp_path: Path) -> None:
    digit = Image.fromarray(SEVEN)
    digit.save(tmp_path / "light.png")
    ImageOps.invert(digit).save(tmp_path / "dark.png")
    for name, ink_on_paper, notes in (
        *(("light", True, ()), ("dark", False, ())),
        ("dark", True, (DARK_ON_LIGHT,)),
    ):
        assert prepared(tmp_path / f"{name}.png", "none", (1, 28, 28), ink_on_paper=ink_on_paper).notes == notes


def test_no_image_of_mnist_is_dark_on_light(data_dir: Path) -> None:
    images = make_source(data_dir).load(train=False).images.numpy()
    assert np.mean([is_dark_on_light(image) for image in images]) < 0.005
    assert np.mean([is_dark_on_light(255 - image) for image in images]) > 0.995


def test_files_that_are_not_images(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    with pytest.raises(ImageError, match=r"^not an image in a known format"):
        pixels_of(tmp_path / "torn.png", "resize", (3, 8, 8))
    with pytest.raises(ImageError, match=r"^no such file$"):
        pixels_of(tmp_path / "none.png", "resize", (3, 8, 8))


def of_set(name: str) -> Any:
    """Return what the choice asks of a data module of another set, whose files are not here."""
    return SimpleNamespace(hparams={"dataset": name, "folder": None}, image_shape=(1, 28, 28))


def test_the_form_of_mnist_is_for_ink_on_paper() -> None:
    mnist, large = ClassificationDataModule(), ClassificationDataModule(image_size=32)
    letters, fashion = of_set("KMNIST"), of_set("FashionMNIST")
    assert [is_ink_on_paper(data) for data in (mnist, letters, fashion, large)] == [True, True, False, False]
    assert [preprocess_for(data, "auto") for data in (mnist, letters, fashion, large)] == [
        *("mnist", "mnist", "resize", "resize")
    ]
    assert [preprocess_for(data, "none") for data in (mnist, fashion)] == ["none", "none"]
    assert (preprocess_for(mnist, "mnist"), preprocess_for(mnist, "resize")) == ("mnist", "resize")
    with pytest.raises(RequestError) as error_info:
        preprocess_for(fashion, "mnist")
    assert str(error_info.value) == (
        "preprocess is mnist, which is for images like those of MNIST, QMNIST, EMNIST, KMNIST, USPS, of 1 x 28 x 28, "
        "but the network takes images of FashionMNIST of 1 x 28 x 28. Leave preprocess out, and the images are resized."
    )
