"""Pictures brought into MNIST's form."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, TiffImagePlugin

from mnist_amp.data import mnist
from mnist_amp.errors import RequestError
from mnist_amp.inference import image_files
from mnist_amp.inference.image_files import ImageError, NoInkError, as_is, found, mnist_form, read


@pytest.fixture(scope="module")
def images(data_dir: Path) -> NDArray[np.uint8]:
    """Return 200 of MNIST's training images."""
    return mnist.load(data_dir, train=True)[0][:200].numpy()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reread(content: bytes) -> Image.Image:
    """Return what is read from a file with this content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read(Path(file.name))


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean difference of pixels, in levels of 255."""
    return float(np.abs(one.astype(float) - other).mean())


def apart_but_for_a_pixel(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return how far they are apart where one is moved best: the centre of mass can be rounded either way."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(apart(np.roll(one, shift, axis=(0, 1)), other) for shift in shifts)


def seven(size: int = 100, ink: Any = "black", paper: Any = "white", mode: str = "RGB") -> Image.Image:
    """Return a picture of a 7, in the upper left of it."""
    picture = Image.new(mode, (size, size), paper)
    draw = ImageDraw.Draw(picture)
    draw.line([(0.1 * size, 0.15 * size), (0.5 * size, 0.15 * size), (0.3 * size, 0.7 * size)], ink, size // 15)
    return picture


SEVEN = mnist_form(seven())


def test_mnists_own_images_stay_as_they_are(images: NDArray[np.uint8]) -> None:
    moved = 0
    for image in images:
        scaled = (image * (255 / image.max())).round().astype(np.uint8)  # the darkest ink is 255, not 253 as in some
        form = mnist_form(Image.fromarray(image))
        moved += apart(form, scaled) > 1
    assert moved <= 6  # of 200: what is fainter than INK at the box's edge is cut off, which can turn the rounding


def test_inverted_padded_and_coloured_they_are_the_same(images: NDArray[np.uint8]) -> None:
    for image in images[:50]:
        picture = Image.fromarray(image)
        wanted = mnist_form(picture)
        wide = Image.new("L", (90, 70))
        wide.paste(picture, (55, 3))
        np.testing.assert_array_equal(mnist_form(ImageOps.invert(picture)), wanted)
        np.testing.assert_array_equal(mnist_form(wide), wanted)
        coloured = ImageOps.colorize(picture, "#f5f5dc", "#1f3a93")
        assert apart_but_for_a_pixel(mnist_form(coloured), wanted) < 0.5
        enlarged = picture.resize((280, 280), Image.Resampling.NEAREST)
        assert apart_but_for_a_pixel(mnist_form(enlarged), wanted) < 4


def test_the_form_is_what_the_authors_describe() -> None:
    rows, columns = np.nonzero(SEVEN > 0.2 * 255)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert SEVEN.max() == 255
    for axis in (0, 1):
        profile = SEVEN.sum(axis=axis, dtype=np.float64)
        assert abs(np.average(np.arange(28), weights=profile) - 14) <= 0.5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {}),
        ("JPEG", {"quality": 95}),
    ],
)
def test_kinds_of_files(kind: str, options: dict[str, Any]) -> None:
    assert apart(mnist_form(reread(encoded(seven(), kind, **options))), SEVEN) < 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_modes(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "I", "F") else "PNG"
    grey = seven(mode="L")
    if mode in ("I;16", "I"):
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        picture = grey.convert("RGB").convert(mode) if mode != "F" else grey.convert("F")
    assert picture.mode == mode
    assert apart(mnist_form(reread(encoded(picture, kind))), SEVEN) < 2


@pytest.mark.parametrize(
    ("bits", "kind"), [(8, np.uint16), (10, np.uint16), (12, np.uint16), (16, np.uint16), (20, np.int32)]
)
def test_scanners_use_as_many_bits_as_they_like(bits: int, kind: type[np.integer[Any]]) -> None:
    levels = (np.asarray(seven(mode="L"), dtype=np.float64) / 255 * (2**bits - 1)).astype(kind)
    assert apart(mnist_form(reread(encoded(Image.fromarray(levels), "TIFF"))), SEVEN) < 2


def test_transparent_paper_and_transparent_rest() -> None:
    clear = (255, 255, 255, 0)
    assert apart(mnist_form(reread(encoded(seven(paper=clear, mode="RGBA"), "PNG"))), SEVEN) < 2  # black ink
    dark_clear = (0, 0, 0, 0)
    assert apart(mnist_form(reread(encoded(seven(ink="white", paper=dark_clear, mode="RGBA"), "PNG"))), SEVEN) < 2
    assert apart(mnist_form(reread(encoded(seven(paper=dark_clear, mode="RGBA"), "PNG"))), SEVEN) < 2
    rounded = seven(mode="RGBA")
    rounded.paste(dark_clear, (90, 90, 100, 100))  # a corner of the paper that is cut off
    assert apart(mnist_form(reread(encoded(rounded, "PNG"))), SEVEN) < 2
    palette = seven(mode="L").convert("P")
    assert apart(mnist_form(reread(encoded(palette, "GIF", transparency=palette.getpixel((99, 99))))), SEVEN) < 2


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation(orientation: int, stored: Image.Transpose, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = seven().transpose(stored)
    assert apart(mnist_form(reread(encoded(turned, kind, exif=exif.tobytes(), quality=95))), SEVEN) < 2
    assert apart(mnist_form(turned), SEVEN) > 20


def test_the_first_of_several_frames() -> None:
    blank = Image.new("RGB", (100, 100), "white")
    for kind in ("GIF", "TIFF", "WEBP"):
        several = encoded(seven(), kind, save_all=True, append_images=[blank])
        assert apart(mnist_form(reread(several)), SEVEN) < 2


def test_uneven_light_and_noise() -> None:
    ink = 1 - np.asarray(seven(400, mode="L")) / 255
    y, x = np.mgrid[0:400, 0:400] / 400
    noise = np.random.default_rng(0).normal(0, 5, ink.shape)
    photo = (210 - 60 * x - 30 * y) * (1 - 0.7 * ink) + noise
    assert apart_but_for_a_pixel(mnist_form(Image.fromarray(photo.clip(0, 255).astype(np.uint8))), SEVEN) < 5


def test_cut_off_where_the_ink_ends(images: NDArray[np.uint8]) -> None:
    """The border is ink and paper then, and of a transparent picture all that can be seen may be ink."""
    far = 0
    for image in images[:100]:
        rows, columns = (np.flatnonzero((image > 40).any(axis=axis))[[0, -1]] for axis in (1, 0))
        cut = Image.fromarray(image[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1])
        transparent = Image.new("RGBA", cut.size, "black")
        transparent.putalpha(cut)
        whole = mnist_form(Image.fromarray(image))
        assert apart_but_for_a_pixel(mnist_form(transparent), whole) < 8
        try:
            far += apart_but_for_a_pixel(mnist_form(cut), whole) > 8
        except NoInkError:
            far += 1
    assert far <= 3  # a 1 that fills its box may as well be paper


def test_a_small_digit_on_a_large_sheet() -> None:
    sheet = Image.new("RGB", (3000, 2500), "white")
    sheet.paste(seven(), (2000, 1200))
    assert apart_but_for_a_pixel(mnist_form(reread(encoded(sheet, "JPEG"))), SEVEN) < 12


def test_exif_that_makes_no_sense() -> None:
    assert apart(mnist_form(reread(encoded(seven(), "PNG", exif=b"garbage"))), SEVEN) < 2


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    name = f"{tmp_path}/{'x' * 300}.png"
    assert list(map(str, found([name]))) == [name]
    with pytest.raises(ImageError, match=r"^there is no such file$"):
        read(Path(name))


def test_specks_are_none_of_the_digit() -> None:
    picture = seven(300)
    for place in ((5, 290), (280, 20), (250, 250)):
        picture.paste("black", (*place, place[0] + 3, place[1] + 3))
    assert apart_but_for_a_pixel(mnist_form(picture), SEVEN) < 4


def test_faint_and_thin_ink_is_darkened() -> None:
    assert apart(mnist_form(seven(ink=(200, 200, 200))), SEVEN) < 1
    thin = seven(300)
    ImageDraw.Draw(thin).rectangle((0, 0, 300, 300), "white")
    ImageDraw.Draw(thin).line([(30, 45), (150, 45), (90, 210)], "black", 1)
    assert mnist_form(thin).max() == 255


@pytest.mark.parametrize("colour", ["white", "black", (120, 10, 200), (128, 128, 128)])
def test_no_ink(colour: Any) -> None:
    with pytest.raises(NoInkError, match=r"^no ink: nothing stands out from the background$"):
        mnist_form(Image.new("RGB", (64, 48), colour))
    noise = np.random.default_rng(0).normal(128, 6, (200, 200)).clip(0, 255).astype(np.uint8)
    with pytest.raises(NoInkError):
        mnist_form(Image.fromarray(noise))
    with pytest.raises(NoInkError):
        mnist_form(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_pixels_come_to_mnists_form_or_no_ink(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    channels = data.draw(st.sampled_from([1, 3, 4]))
    levels = np.frombuffer(
        data.draw(st.binary(min_size=height * width * channels, max_size=height * width * channels)), np.uint8
    ).reshape(height, width, channels)
    picture = Image.fromarray(levels[..., 0] if channels == 1 else levels)
    try:
        form = mnist_form(picture)
    except NoInkError:
        return
    assert form.shape == (28, 28)
    assert form.dtype == np.uint8
    assert form.max() >= 250


def test_extreme_shapes() -> None:
    for size in ((20_000, 300), (300, 20_000), (2, 20_000)):
        picture = Image.new("L", size, 255)
        picture.paste(0, (0, 0, max(size[0] // 8, 1), max(size[1] // 8, 1)))
        assert mnist_form(picture).max() == 255


def test_as_is() -> None:
    image = np.arange(784, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    np.testing.assert_array_equal(as_is(Image.fromarray(image)), image)
    with pytest.raises(ImageError, match=r"^it is not 28 x 28 pixels; leave out --preprocess none$"):
        as_is(Image.new("L", (30, 28)))
    with pytest.raises(ImageError, match=r"^it has transparent parts; leave out --preprocess none$"):
        as_is(Image.new("RGBA", (28, 28)))


def test_what_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(seven(), "PNG")
    with pytest.raises(ImageError, match=r"^it can't be read: ."):
        reread(whole[:200])
    with pytest.raises(
        ImageError, match=r"^it is no picture of a kind that is read \(PNG, JPEG, BMP, GIF, TIFF, WEBP\)$"
    ):
        reread(b"<svg></svg>")
    with pytest.raises(ImageError, match=r"^it is no picture of a kind"):
        reread(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # which Pillow would have Ghostscript draw
    with pytest.raises(ImageError, match=r"^there is no such file$"):
        read(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match=r"^it is not a file$"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"^it is not a file$"):
        read(tmp_path / "pipe.png")
    monkeypatch.setattr(image_files, "MOST_PIXELS", 9_999)
    with pytest.raises(ImageError, match=r"^it has more than the 9,999 pixels that are read; scale it down$"):
        reread(whole)


def test_a_file_of_more_pixels_than_pillow_reads() -> None:
    bomb = bytearray(encoded(Image.new("1", (8, 8)), "TIFF"))
    ifd = int.from_bytes(bomb[4:8], "little")
    entries = {int.from_bytes(bomb[ifd + 2 + 12 * i : ifd + 4 + 12 * i], "little"): ifd + 2 + 12 * i for i in range(8)}
    for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH):
        bomb[entries[tag] + 8 : entries[tag] + 12] = (60_000).to_bytes(4, "little")
    with pytest.raises(ImageError, match=r"^it has more than the 100,000,000 pixels"):
        reread(bytes(bomb))


@settings(max_examples=100, deadline=None)
@given(
    place=st.integers(0, 10_000),
    byte=st.integers(0, 255),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
)
def test_damaged_files_are_a_picture_error_or_a_picture(place: int, byte: int, kind: str) -> None:
    content = bytearray(encoded(seven(40), kind))
    content[place % len(content)] = byte
    try:
        mnist_form(reread(bytes(content)))
    except ImageError:
        return
    assert reread(bytes(content)).mode in ("L", "RGB", "RGBA")


def test_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/1.JPG", "a/b/3.tif", "a/notes.txt", "x.webp", "[1].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list(map(str, found(["a"]))) == ["a/1.JPG", "a/2.png", "a/b/3.tif"]
    assert list(map(str, found(["*.webp", "x.webp", "a/notes.txt"]))) == ["x.webp", "a/notes.txt"]
    assert list(map(str, found(["a/**/*.tif", "[1].png"]))) == ["a/b/3.tif", "[1].png"]
    assert list(map(str, found([f"{tmp_path}/*.webp"]))) == [f"{tmp_path}/x.webp"]
    assert list(map(str, found(["nothing.png"]))) == ["nothing.png"]
    for path, what in (("*.bmp", "matches no file"), ("c", "holds no pictures"), ("", "is no name")):
        Path("c").mkdir(exist_ok=True)
        with pytest.raises(RequestError) as error_info:
            found([path])
        endings = "pictures end in .png, .jpg, .jpeg, .bmp, .gif, .tif, .tiff, .webp."
        assert str(error_info.value) == f"{path or repr('')} {what}; {endings}"


def test_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a").mkdir()
    for name in ("a/1.png", "a/.hidden.png"):
        Path(name).touch()
    Path("a/folder.png").mkdir()
    Path("a/loop").symlink_to(".")
    Path("link.png").symlink_to("a/1.png")
    assert list(map(str, found(["a/1.png", "link.png", "a/../a/1.png", f"{tmp_path}/a/1.png", "a", "**"]))) == [
        "a/1.png"
    ]
    assert list(map(str, found(["~/a/1.png", "a/.hidden.png"]))) == [f"{tmp_path}/a/1.png", "a/.hidden.png"]


def test_printable() -> None:
    assert image_files.printable(Path(os.fsdecode(b"\xff7\n\x1b[31m\xc3\xa4.png"))) == "\\udcff7\\n\\x1b[31mä.png"
