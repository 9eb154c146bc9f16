"""Digits found in images: without the paper's lines, boxes, shadows and the table, one by one, in reading order."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageOps

from mnist_amp.images.digit_finder import Digit, find_digits, missing_opencv
from mnist_amp.images.mnist_form import NoInkError, mnist_form
from tests.images.test_mnist_form import SEVEN, apart_except_a_shift, images, seven

__all__ = ["images"]

SIZE = 400
CLOSE = 9  # levels of 255; another digit is 40 or more apart


def photo(image: Image.Image, noise: float = 3, colour_noise: float = 0) -> Image.Image:
    """Return an image as a camera makes it: not quite white, with noise and uneven light."""
    draw = np.random.default_rng(0)
    levels = np.asarray(image.convert("RGB"), dtype=np.float64)
    height, width = levels.shape[:2]
    y, x = np.mgrid[:height, :width] / max(height, width)
    levels = levels * (0.85 - 0.15 * x - 0.1 * y)[..., None] + draw.normal(0, noise, (height, width, 1))
    levels += draw.normal(0, colour_noise, levels.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def is_seven(digit: Digit) -> bool:
    return apart_except_a_shift(digit.pixels, SEVEN) < CLOSE


def lined(image: Image.Image, ink: Any, width: int, *, squared: bool = False, slope: float = 0) -> Image.Image:
    """Draw the lines of ruled or squared paper over an image."""
    draw = ImageDraw.Draw(image)
    for at in range(-5, 2 * SIZE, 30):
        draw.line([(0, at), (SIZE, at - slope * SIZE)], ink, width)
        if squared:
            draw.line([(at, 0), (at + slope * SIZE, SIZE)], ink, width)
    return image


def row(text: str, height: int = 60, size: tuple[int, int] = (480, 200), top: int = 70) -> Image.Image:
    """Draw signs in a row with a pen: digits 1 and 7, and `-`, `.` and `/`."""
    strokes: dict[str, list[tuple[float, float]]] = {
        "1": [(0.2, 0), (0.1, 1)],
        "7": [(0, 0), (0.6, 0), (0.3, 1)],
        "-": [(0, 0.5), (0.4, 0.5)],
        ".": [(0, 0.97), (0.03, 0.97)],
        "/": [(0.5, -0.1), (0, 1.1)],
    }
    image = Image.new("RGB", size, "white")
    for index, sign in enumerate(text):
        left = 20 + index * height
        points = [(left + height * x, top + height * y) for x, y in strokes[sign]]
        ImageDraw.Draw(image).line(points, (20, 30, 90), height // 8, joint="curve")
    return image


def width_to_height(digits: list[Digit]) -> list[float]:
    return [(box[2] - box[0]) / (box[3] - box[1]) for box in (digit.box for digit in digits)]


def test_mnists_images_are_in_the_form_already(images: NDArray[np.uint8]) -> None:
    for pixels in images[:50]:
        image = Image.fromarray(pixels)
        for given_image in (image, ImageOps.invert(image)):
            (digit,) = find_digits(given_image)
            np.testing.assert_array_equal(digit.pixels, mnist_form(image))
            assert digit.notes == ()


def test_scans_and_drawings_of_one_digit(images: NDArray[np.uint8]) -> None:
    """Digits of several parts are one digit, and are not noted."""
    noted = several = 0
    for pixels in images:
        enlarged = Image.fromarray(pixels).resize((280, 280), Image.Resampling.BICUBIC)
        digits = find_digits(enlarged)
        several += len(digits) > 1
        noted += any(digit.notes for digit in digits)
        assert apart_except_a_shift(digits[0].pixels, mnist_form(enlarged)) < 3 or len(digits) > 1
    assert several <= 4  # of 200; pixels differ with the build of OpenCV
    assert noted <= 8


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("slope", [0, 0.05])
@pytest.mark.parametrize(("ink", "width"), [((150, 180, 230), 2), ("black", 1)])
def test_the_lines_of_paper_are_removed(squared: bool, slope: float, ink: Any, width: int) -> None:
    for image in (seven(SIZE), photo(seven(SIZE))):
        (digit,) = find_digits(lined(image, ink, width, squared=squared, slope=slope))
        assert is_seven(digit)
        assert digit.notes == ()


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_box_of_a_form_is_removed(width: int) -> None:
    box = (18, 35, 230, 300)
    image = seven(SIZE)
    ImageDraw.Draw(image).rectangle(box, outline="black", width=width)
    cut = image.crop((box[0] + 1, box[1], box[2], box[3] - 1))
    for boxed in (image, cut, photo(image), photo(cut)):
        (digit,) = find_digits(boxed)
        assert is_seven(digit)


def test_a_digit_made_of_straight_lines_is_not_a_box() -> None:
    image = Image.new("L", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(150, 100), (150, 200), (250, 200)], "black", 5)  # an open 4
    draw.line([(250, 100), (250, 300)], "black", 5)
    wanted = mnist_form(image)
    for four in (image, photo(image)):
        (digit,) = find_digits(four)
        assert apart_except_a_shift(digit.pixels, wanted) < CLOSE


@pytest.mark.parametrize("direction", [(1, 0.2), (-1, 0.4), (0.3, 1), (0.2, -1)])
def test_the_edge_of_a_shadow_is_no_ink(direction: tuple[float, float]) -> None:
    levels = np.asarray(photo(seven(SIZE)), dtype=np.float64)
    y, x = np.mgrid[:SIZE, :SIZE] - 130
    for softness in (1, 60):
        dark = 1 / (1 + np.exp(-(direction[0] * x + direction[1] * y) / softness))
        (digit,) = find_digits(Image.fromarray((levels * (1 - 0.5 * dark[..., None])).astype(np.uint8)))
        assert is_seven(digit)


@pytest.mark.parametrize("tilt", [-0.4, 0, 0.4])
def test_a_wide_row_of_digits_in_a_shadow(tilt: float) -> None:
    """The light between the strokes is no ink, and the digits at the edge of the shadow are found."""
    text = "17717771"
    levels = np.asarray(photo(row(text, height=90, size=(800, 180), top=45)), dtype=np.float64)
    y, x = np.mgrid[:180, :800]
    dark = 1 / (1 + np.exp(-(x - 400 - tilt * (y - 90)) / 2))
    image = Image.fromarray((levels * (1 - 0.5 * dark[..., None])).astype(np.uint8))
    for shadowed in (image, image.convert("L"), ImageOps.invert(image)):
        digits = find_digits(shadowed)
        assert [width > 0.4 for width in width_to_height(digits)] == [sign == "7" for sign in text]


@pytest.mark.parametrize("angle", [-8, 0, 5])
def test_the_table_around_the_paper_is_left_out(angle: float) -> None:
    image = Image.new("RGB", (520, 480), (90, 60, 35))
    for at in range(0, 520, 7):
        ImageDraw.Draw(image).line([(at, 0), (at + 9, 480)], (110, 75, 45), 2)
    paper = ImageChops.offset(seven(340), 60, 40)
    mask = Image.new("L", paper.size, 255).rotate(angle, expand=True)
    image.paste(paper.rotate(angle, expand=True), (60, 50), mask)
    (digit,) = find_digits(photo(image))
    turned = mnist_form(seven(340).rotate(angle, fillcolor="white"))
    assert apart_except_a_shift(digit.pixels, turned) < CLOSE
    assert digit.notes == ()


def test_light_ink_on_dark_paper() -> None:
    for image in (photo(seven(SIZE)), lined(photo(seven(SIZE)), "gray", 2)):
        (digit,) = find_digits(ImageOps.invert(image))
        assert is_seven(digit)


@pytest.mark.parametrize("ink", [(200, 40, 40), (40, 60, 200), (20, 120, 40)])
def test_coloured_ink(ink: Any) -> None:
    (digit,) = find_digits(photo(seven(SIZE, ink=ink), colour_noise=4))
    assert is_seven(digit)


def test_noise_of_colours_counts_as_much_as_noise_of_grey() -> None:
    image = seven(SIZE, ink=(170, 170, 170), paper=(215, 215, 215))
    for noisy in (photo(image, 6), photo(image, 0, colour_noise=6)):
        (digit,) = find_digits(noisy)
        assert is_seven(digit)


def test_blank_paper_has_no_ink() -> None:
    for image in (Image.new("L", (SIZE, 300), "white"), photo(Image.new("L", (SIZE, 300), "white"))):
        with pytest.raises(NoInkError, match=r"^no ink: nothing stands out from the background$"):
            find_digits(image)


def test_a_row_of_digits_is_read_from_left_to_right() -> None:
    for image in (row("17717"), photo(row("17717"))):
        digits = find_digits(image)
        assert [digit.box[0] for digit in digits] == sorted(digit.box[0] for digit in digits)
        assert [width > 0.4 for width in width_to_height(digits)] == [False, True, True, False, True]
    assert [digit.notes for digit in digits] == [()] * 5


def test_rows_are_read_from_top_to_bottom() -> None:
    image = ImageChops.multiply(row("71", size=(480, 300), top=30), row("177", size=(480, 300), top=150))
    digits = find_digits(photo(image))
    assert [digit.box[1] // 100 for digit in digits] == [0, 0, 1, 1, 1]
    assert [width > 0.4 for width in width_to_height(digits)] == [True, False, False, True, True]


def test_rows_close_to_each_other_are_two() -> None:
    image = ImageChops.multiply(row("711", size=(480, 300), top=30), row("177", size=(480, 300), top=112))
    digits = find_digits(photo(image))
    assert [digit.row for digit in digits] == [1, 1, 1, 2, 2, 2]
    assert [width > 0.4 for width in width_to_height(digits)] == [True, False, False, False, True, True]


@pytest.mark.parametrize(("text", "notes"), [("17-71", 0), ("17.71", 0), ("77/17", 1), ("71-17-71", 0)])
def test_the_signs_of_a_date_are_left_out(text: str, notes: int) -> None:
    digits = find_digits(photo(row(text, height=50)))
    assert [width > 0.4 for width in width_to_height(digits)] == [sign == "7" for sign in text if sign in "17"]
    assert [digit.notes for digit in digits] == [("a stroke between digits was read as a slash",) * notes] * len(digits)


def test_strokes_that_do_not_stand_as_in_a_date_are_digits_with_a_note() -> None:
    digits = find_digits(photo(row("777/7", height=50)))
    assert [digit.notes for digit in digits] == [(), (), (), ("may be a slash",), ()]


def test_the_cells_of_a_form() -> None:
    image = row("7177")
    for left in range(10, 250, 60):
        ImageDraw.Draw(image).rectangle((left, 55, left + 60, 145), outline="gray", width=2)
    for cells in (image, photo(image)):
        digits = find_digits(cells)
        assert [width > 0.4 for width in width_to_height(digits)] == [True, False, True, True]


def test_digits_near_the_lines_of_thick_cells_beside_each_other() -> None:
    """Two lines that are found as one are not taken for a line as wide as both."""
    image = row("7177")
    for left in range(20, 250, 60):
        ImageDraw.Draw(image).rectangle((left, 55, left + 54, 145), outline="gray", width=5)
    digits = find_digits(photo(image))
    assert [width > 0.4 for width in width_to_height(digits)] == [True, False, True, True]


def test_the_bar_of_a_five_belongs_to_it() -> None:
    image = Image.new("L", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(180, 130), (160, 200), (220, 220), (210, 280), (150, 290)], "black", 16, joint="curve")
    draw.line([(200, 110), (280, 105)], "black", 16)
    (digit,) = find_digits(photo(image))
    assert (digit.box[0] < 160, digit.box[2] > 270) == (True, True)


def test_boxes_are_in_pixels_of_the_image() -> None:
    (digit,) = find_digits(seven(2000))
    np.testing.assert_allclose(digit.box, (135, 235, 1065, 1425), atol=70)


def test_scans_drawings_and_images_of_mnists_size_are_no_photographs(images: NDArray[np.uint8]) -> None:
    for image, is_photograph in (
        (photo(seven(SIZE)), True),
        (seven(SIZE), False),
        (Image.fromarray(images[0]), False),
        (Image.fromarray(images[0]).resize((280, 280)), False),
    ):
        assert [digit.is_photograph for digit in find_digits(image)] == [is_photograph]


def test_a_digit_on_a_large_page_is_found() -> None:
    """Its ink is 0.2 % of the page."""
    page = Image.new("RGB", (3000, 2200), "white")
    page.paste(seven(300), (1900, 400))
    (digit,) = find_digits(photo(page))
    assert apart_except_a_shift(digit.pixels, SEVEN) < 2 * CLOSE
    assert digit.box == pytest.approx((1926, 430, 2062, 617), abs=12)


def test_what_is_doubtful_is_noted() -> None:
    touching = row("771")
    ImageDraw.Draw(touching).line([(30, 100), (150, 100)], (20, 30, 90), 6)
    assert find_digits(photo(touching))[0].notes == ("may be several digits that touch",)
    assert find_digits(photo(seven(SIZE)).crop((0, 62, 400, 400)))[0].notes == (
        "the ink reaches the edge of the paper",
    )
    assert find_digits(photo(row("77-")))[0].notes == ("a small mark was left out",)


STROKE, RING = ("line", (200, 80, 204, 270)), ("ellipse", (100, 60, 300, 340))


@pytest.mark.parametrize(
    ("shapes", "is_noted"),
    [
        ([STROKE, ("ellipse", (190, 300, 214, 324))], True),  # `!`
        ([RING, ("ellipse", (160, 140, 180, 160)), ("ellipse", (220, 140, 240, 160))], True),  # a face
        ([STROKE, ("line", (150, 40, 300, 40))], False),  # the bar of a 5
        ([RING], False),
    ],
)
def test_dots_and_inner_marks_are_noted(shapes: list[tuple[str, tuple[int, int, int, int]]], is_noted: bool) -> None:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    for kind, box in shapes:
        if kind == "line":
            draw.line(box, "black", 16)
        else:
            draw.ellipse(box, outline="black", width=12)
    (digit,) = find_digits(photo(image))
    assert digit.notes == ("has a dot or an inner mark, which digits do not have",) * is_noted


@pytest.fixture
def broken_opencv(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An OpenCV that is installed, but lacks a library."""
    error = ImportError("libGL.so.1: cannot open shared object file")

    class Broken(MetaPathFinder):
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "cv2":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "cv2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    missing_opencv.cache_clear()
    yield
    missing_opencv.cache_clear()


def test_an_opencv_that_can_not_be_imported_is_noted(broken_opencv: None) -> None:
    (digit,) = find_digits(row("77"))
    assert digit.notes == (
        "OpenCV can't be imported (libGL.so.1: cannot open shared object file); `pip install 'mnist-amp[images]'` "
        "reads lined paper, shadows and several digits",
    )


def test_without_opencv_one_digit_is_found(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    missing_opencv.cache_clear()
    request.addfinalizer(missing_opencv.cache_clear)
    note = "OpenCV is not installed; `pip install 'mnist-amp[images]'` reads lined paper, shadows and several digits"
    for image, notes, is_photograph in (
        (seven(SIZE), (), False),
        (photo(seven(SIZE)), (note,), True),
        (row("77"), (note,), False),
    ):
        (digit,) = find_digits(image)
        np.testing.assert_array_equal(digit.pixels, mnist_form(image))
        assert (digit.notes, digit.is_photograph) == (notes, is_photograph)


def test_opencv_is_imported_when_an_image_is_read() -> None:
    code = "import sys, mnist_amp.images.digit_finder; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_find_the_same() -> None:
    pictured = [photo(row(text)) for text in ("17", "771", "7-1", "1117")] * 4
    alone = [[digit.box for digit in find_digits(image)] for image in pictured]
    with ThreadPoolExecutor(4) as pool:
        together = [[digit.box for digit in digits] for digits in pool.map(find_digits, pictured)]
    assert together == alone


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_pixels_give_digits_or_no_ink(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(29, 130))
    channels = data.draw(st.sampled_from([1, 3, 4]))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    levels = draw.integers(0, 256, (height, width, channels)) // data.draw(st.integers(1, 255))
    levels[: data.draw(st.integers(0, height))] = data.draw(st.integers(0, 255))
    levels = levels.astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if channels == 1 else levels)
    try:
        digits = find_digits(image)
    except NoInkError:
        return
    for digit in digits:
        assert digit.pixels.shape == (28, 28)
        assert digit.pixels.dtype == np.uint8
        assert digit.pixels.max() >= 250
        left, top, right, bottom = digit.box
        assert 0 <= left < right <= width + 2
        assert 0 <= top < bottom <= height + 2


def test_extreme_shapes() -> None:
    for size in ((20_000, 300), (300, 20_000), (2, 20_000), (20_000, 1)):
        image = Image.new("L", size, 255)
        image.paste(0, (0, 0, max(size[0] // 8, 1), max(size[1] // 8, 1)))
        assert find_digits(image)[0].pixels.max() == 255
