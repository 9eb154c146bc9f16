"""Whether training images have MNIST's form, and so an image that is predicted is brought into it."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from mnist_amp.data import ClassificationDataModule, mnist
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
