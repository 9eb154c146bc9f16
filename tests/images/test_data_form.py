"""Whether training images have MNIST's form, and so an image that is predicted is brought into it."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from mnist_amp.data import ClassificationDataModule, folder_source, mnist
from mnist_amp.data.decoding import read_pixels
from mnist_amp.data.image_folder import list_images
from mnist_amp.data.image_set import Source
from mnist_amp.images import data_form
from mnist_amp.images.data_form import have_mnist_form, is_ink_on_paper
from mnist_amp.images.mnist_form import mnist_form


def test_images_of_mnist_have_it_and_changed_ones_do_not(data_dir: Path) -> None:
    images = mnist.load(data_dir, train=False)[0]
    assert have_mnist_form(images)
    assert not have_mnist_form(255 - images)
    assert not have_mnist_form(images.roll(1, 2))
    assert not have_mnist_form(torch.zeros(3, 28, 28, dtype=torch.uint8))
    mixed = torch.cat([images[:90], 255 - images[:10]])
    assert have_mnist_form(mixed)
    assert not have_mnist_form(mixed[1:])


@pytest.mark.parametrize("in_form", [True, False])
def test_digits_in_a_folder(tmp_path: Path, in_form: bool) -> None:
    """Those that are saved in MNIST's form have it. Photographs that are only made small do not."""
    for index in range(8):
        photo = Image.new("L", (200, 200), 230)
        ImageDraw.Draw(photo).line([(60, 40 + 5 * index), (110, 50), (80 + 9 * index, 170)], 20, width=9)
        image = Image.fromarray(mnist_form(photo)) if in_form else photo.resize((28, 28))
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        image.save(tmp_path / str(index % 2) / f"{index}.png")
    assert is_ink_on_paper(ClassificationDataModule(folder=str(tmp_path), batch_size=2)) is in_form
    assert not is_ink_on_paper(ClassificationDataModule(folder=str(tmp_path), image_size=32, batch_size=2))


def test_of_many_images_some_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(50):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        Image.new("L", (28, 28), index).save(tmp_path / str(index % 2) / f"{index:02}.png")
    data = ClassificationDataModule(folder=str(tmp_path), batch_size=2)
    samples = [sample.path for sample in list_images(tmp_path, 0).train]
    assert len(samples) == 46
    read: list[Path] = []

    def counted(path: Path) -> torch.Tensor:
        read.append(path)
        return read_pixels(path)

    monkeypatch.setattr(folder_source, "read_pixels", counted)
    monkeypatch.setattr(data_form, "LOOKED_AT", 10)
    assert not is_ink_on_paper(data)
    assert sorted(read) == samples[::4]
    wanted = data.source.load(train=True).images[::4]
    assert torch.equal(data.source.examples(10), wanted)
    assert torch.equal(Source.examples(data.source, 10), wanted)
