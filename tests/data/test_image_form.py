import numpy as np
import pytest
import torch
from PIL import Image

from mnist_amp.data.image_form import ImageForm, make_form, to_grey
from mnist_amp.errors import RequestError


def test_grey_equals_pillows() -> None:
    colours = torch.randint(256, (2, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for colour, grey in zip(colours, to_grey(colours), strict=True):
        theirs = np.array(Image.fromarray(colour.permute(1, 2, 0).numpy()).convert("L"))
        assert torch.equal(grey[0], torch.from_numpy(theirs))


def test_without_options_images_are_unchanged() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    assert torch.equal(ImageForm().apply(images), images)


def test_a_smaller_image_is_the_mean_of_its_pixels() -> None:
    images = torch.tensor([0, 100, 40, 60], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert ImageForm(size=(1, 1)).apply(images).tolist() == [[[[50]]]]


def test_grey_is_repeated_for_three_channels() -> None:
    images = ImageForm(channels=3).apply(torch.tensor([[[[7]]]], dtype=torch.uint8))
    assert images.tolist() == [[[[7]], [[7]], [[7]]]]
    assert images.is_contiguous()


@pytest.mark.parametrize("size", [0, -1, (28, 0), (1, 2, 3), (True, 2)])
def test_refused_sizes(size: int | tuple[int, int]) -> None:
    with pytest.raises(RequestError) as error:
        make_form(size, None)
    assert str(error.value) == (
        f"data.image_size is {size}; it must be a number of pixels from 1, or two: height and width."
    )


def test_refused_channels() -> None:
    with pytest.raises(RequestError) as error:
        make_form(28, 4)
    assert str(error.value) == "data.channels is 4; it must be 1 (grey) or 3 (RGB)."


def test_one_number_is_height_and_width() -> None:
    assert make_form(28, 1) == ImageForm((28, 28), 1)
    assert make_form((28, 30), None) == ImageForm((28, 30), None)
