"""Images of digits, brought into MNIST's form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from mnist_amp.data import mnist
from mnist_amp.images.mnist_form import NoInkError, mnist_form


@pytest.fixture(scope="module")
def images(data_dir: Path) -> NDArray[np.uint8]:
    """Return 200 of MNIST's training images."""
    return mnist.load(data_dir, train=True)[0][:200].numpy()


def apart(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean difference of pixels, in levels of 255."""
    return float(np.abs(image.astype(float) - other).mean())


def apart_except_a_shift(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the difference after the best shift by a pixel: the centre of mass can be rounded up or down."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(apart(np.roll(image, shift, axis=(0, 1)), other) for shift in shifts)


def seven(size: int = 100, ink: Any = "black", paper: Any = "white", mode: str = "RGB") -> Image.Image:
    """Return an image with a 7 in its upper left."""
    image = Image.new(mode, (size, size), paper)
    draw = ImageDraw.Draw(image)
    draw.line([(0.1 * size, 0.15 * size), (0.5 * size, 0.15 * size), (0.3 * size, 0.7 * size)], ink, size // 15)
    return image


SEVEN = mnist_form(seven())


def test_mnists_images_do_not_change(images: NDArray[np.uint8]) -> None:
    moved = 0
    for image in images:
        scaled = (image * (255 / image.max())).round().astype(np.uint8)  # the darkest ink is 255, not 253 as in some
        form = mnist_form(Image.fromarray(image))
        moved += apart(form, scaled) > 1
    assert moved <= 6  # of 200: ink fainter than INK is cut off at the box's edge, which can change the rounding


def test_inverted_padded_and_coloured_images_give_the_same(images: NDArray[np.uint8]) -> None:
    for image in images[:50]:
        original = Image.fromarray(image)
        wanted = mnist_form(original)
        wide = Image.new("L", (90, 70))
        wide.paste(original, (55, 3))
        np.testing.assert_array_equal(mnist_form(ImageOps.invert(original)), wanted)
        np.testing.assert_array_equal(mnist_form(wide), wanted)
        coloured = ImageOps.colorize(original, "#f5f5dc", "#1f3a93")
        assert apart_except_a_shift(mnist_form(coloured), wanted) < 0.5
        enlarged = original.resize((280, 280), Image.Resampling.NEAREST)
        assert apart_except_a_shift(mnist_form(enlarged), wanted) < 4


def test_the_form_is_what_the_authors_describe() -> None:
    rows, columns = np.nonzero(SEVEN > 0.2 * 255)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert SEVEN.max() == 255
    for axis in (0, 1):
        profile = SEVEN.sum(axis=axis, dtype=np.float64)
        assert abs(np.average(np.arange(28), weights=profile) - 14) <= 0.5


def test_uneven_light_and_noise() -> None:
    ink = 1 - np.asarray(seven(400, mode="L")) / 255
    y, x = np.mgrid[0:400, 0:400] / 400
    noise = np.random.default_rng(0).normal(0, 5, ink.shape)
    photo = (210 - 60 * x - 30 * y) * (1 - 0.7 * ink) + noise
    assert apart_except_a_shift(mnist_form(Image.fromarray(photo.clip(0, 255).astype(np.uint8))), SEVEN) < 5


def test_images_that_end_where_the_ink_ends(images: NDArray[np.uint8]) -> None:
    """The border is then ink and paper, and the visible part of a transparent image may be ink alone."""
    far = 0
    for image in images[:100]:
        rows, columns = (np.flatnonzero((image > 40).any(axis=axis))[[0, -1]] for axis in (1, 0))
        cut = Image.fromarray(image[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1])
        transparent = Image.new("RGBA", cut.size, "black")
        transparent.putalpha(cut)
        complete = mnist_form(Image.fromarray(image))
        assert apart_except_a_shift(mnist_form(transparent), complete) < 8
        try:
            far += apart_except_a_shift(mnist_form(cut), complete) > 8
        except NoInkError:
            far += 1
    assert far <= 3  # a 1 that fills its box may as well be paper


def test_specks_are_removed() -> None:
    image = seven(300)
    for place in ((5, 290), (280, 20), (250, 250)):
        image.paste("black", (*place, place[0] + 3, place[1] + 3))
    assert apart_except_a_shift(mnist_form(image), SEVEN) < 4


def test_faint_and_thin_ink_is_darkened() -> None:
    assert apart(mnist_form(seven(ink=(200, 200, 200))), SEVEN) < 1
    thin = seven(300)
    ImageDraw.Draw(thin).rectangle((0, 0, 300, 300), "white")
    ImageDraw.Draw(thin).line([(30, 45), (150, 45), (90, 210)], "black", 1)
    assert mnist_form(thin).max() == 255


@pytest.mark.parametrize("colour", ["white", "black", (120, 10, 200), (128, 128, 128)])
def test_an_empty_image_has_no_ink(colour: Any) -> None:
    with pytest.raises(NoInkError, match=r"^no ink: nothing stands out from the background$"):
        mnist_form(Image.new("RGB", (64, 48), colour))
    noise = np.random.default_rng(0).normal(128, 6, (200, 200)).clip(0, 255).astype(np.uint8)
    with pytest.raises(NoInkError):
        mnist_form(Image.fromarray(noise))
    with pytest.raises(NoInkError):
        mnist_form(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_pixels_give_mnists_form_or_no_ink(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    channels = data.draw(st.sampled_from([1, 3, 4]))
    levels = np.frombuffer(
        data.draw(st.binary(min_size=height * width * channels, max_size=height * width * channels)), np.uint8
    ).reshape(height, width, channels)
    image = Image.fromarray(levels[..., 0] if channels == 1 else levels)
    try:
        form = mnist_form(image)
    except NoInkError:
        return
    assert form.shape == (28, 28)
    assert form.dtype == np.uint8
    assert form.max() >= 250


def test_extreme_shapes() -> None:
    for size in ((20_000, 300), (300, 20_000), (2, 20_000)):
        image = Image.new("L", size, 255)
        image.paste(0, (0, 0, max(size[0] // 8, 1), max(size[1] // 8, 1)))
        assert mnist_form(image).max() == 255
