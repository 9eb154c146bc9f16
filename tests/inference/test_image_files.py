"""The user's image files: found by name, and read."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from mnist_amp.errors import RequestError
from mnist_amp.inference import image_files
from mnist_amp.inference.image_files import find_images, load_image, read_image
from mnist_amp.inference.image_readers import make_reader
from mnist_amp.inference.mnist_form import ImageError, mnist_form
from tests.inference.test_mnist_form import SEVEN, apart, apart_except_a_shift, seven


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reread(content: bytes) -> Image.Image:
    """Return what is read from a file with this content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_image(Path(file.name))


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
def test_file_formats(kind: str, options: dict[str, Any]) -> None:
    assert apart(mnist_form(reread(encoded(seven(), kind, **options))), SEVEN) < 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_color_modes(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "I", "F") else "PNG"
    grey = seven(mode="L")
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(grey).astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = grey.convert("RGB").convert(mode) if mode != "F" else grey.convert("F")
    assert image.mode == mode
    assert apart(mnist_form(reread(encoded(image, kind))), SEVEN) < 2


@pytest.mark.parametrize(
    ("bits", "kind"), [(8, np.uint16), (10, np.uint16), (12, np.uint16), (16, np.uint16), (20, np.int32)]
)
def test_any_number_of_bits_per_pixel(bits: int, kind: type[np.integer[Any]]) -> None:
    levels = (np.asarray(seven(mode="L"), dtype=np.float64) / 255 * (2**bits - 1)).astype(kind)
    assert apart(mnist_form(reread(encoded(Image.fromarray(levels), "TIFF"))), SEVEN) < 2


def test_transparency() -> None:
    clear = (255, 255, 255, 0)
    assert apart(mnist_form(reread(encoded(seven(paper=clear, mode="RGBA"), "PNG"))), SEVEN) < 2  # black ink
    dark_clear = (0, 0, 0, 0)
    assert apart(mnist_form(reread(encoded(seven(ink="white", paper=dark_clear, mode="RGBA"), "PNG"))), SEVEN) < 2
    assert apart(mnist_form(reread(encoded(seven(paper=dark_clear, mode="RGBA"), "PNG"))), SEVEN) < 2
    rounded = seven(mode="RGBA")
    rounded.paste(dark_clear, (90, 90, 100, 100))  # a corner of the paper is cut off
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


def test_reads_the_first_of_several_frames() -> None:
    blank = Image.new("RGB", (100, 100), "white")
    for kind in ("GIF", "TIFF", "WEBP"):
        several = encoded(seven(), kind, save_all=True, append_images=[blank])
        assert apart(mnist_form(reread(several)), SEVEN) < 2


def test_a_small_digit_on_a_large_sheet() -> None:
    sheet = Image.new("RGB", (3000, 2500), "white")
    sheet.paste(seven(), (2000, 1200))
    assert apart_except_a_shift(mnist_form(reread(encoded(sheet, "JPEG"))), SEVEN) < 12


def test_invalid_exif_is_ignored() -> None:
    assert apart(mnist_form(reread(encoded(seven(), "PNG", exif=b"garbage"))), SEVEN) < 2


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    name = f"{tmp_path}/{'x' * 300}.png"
    assert list(map(str, find_images([name]))) == [name]
    with pytest.raises(ImageError, match=r"^no such file$"):
        read_image(Path(name))


def test_files_that_are_not_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = encoded(seven(), "PNG")
    with pytest.raises(ImageError, match=r"^can't be read: ."):
        reread(complete[:200])
    with pytest.raises(ImageError, match=r"^not an image in a known format \(PNG, JPEG, BMP, GIF, TIFF, WEBP\)$"):
        reread(b"<svg></svg>")
    with pytest.raises(ImageError, match=r"^not an image in a known format"):
        reread(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # Pillow would run Ghostscript
    with pytest.raises(ImageError, match=r"^no such file$"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match=r"^not a file$"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"^not a file$"):
        read_image(tmp_path / "pipe.png")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 9_999)
    with pytest.raises(ImageError, match=r"^more than 9,999 pixels; scale it down$"):
        reread(complete)


def test_a_file_with_more_pixels_than_pillow_reads() -> None:
    bomb = bytearray(encoded(Image.new("1", (8, 8)), "TIFF"))
    ifd = int.from_bytes(bomb[4:8], "little")
    entries = {int.from_bytes(bomb[ifd + 2 + 12 * i : ifd + 4 + 12 * i], "little"): ifd + 2 + 12 * i for i in range(8)}
    for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH):
        bomb[entries[tag] + 8 : entries[tag] + 12] = (60_000).to_bytes(4, "little")
    with pytest.raises(ImageError, match=r"^more than 100,000,000 pixels"):
        reread(bytes(bomb))


@settings(max_examples=100, deadline=None)
@given(
    place=st.integers(0, 10_000),
    byte=st.integers(0, 255),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
)
def test_damaged_files_give_an_image_or_an_image_error(place: int, byte: int, kind: str) -> None:
    content = bytearray(encoded(seven(40), kind))
    content[place % len(content)] = byte
    try:
        mnist_form(reread(bytes(content)))
    except ImageError:
        return
    assert reread(bytes(content)).mode in ("L", "RGB", "RGBA")


def test_finds_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/1.JPG", "a/b/3.tif", "a/notes.txt", "x.webp", "[1].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list(map(str, find_images(["a"]))) == ["a/1.JPG", "a/2.png", "a/b/3.tif"]
    assert list(map(str, find_images(["*.webp", "x.webp", "a/notes.txt"]))) == ["x.webp", "a/notes.txt"]
    assert list(map(str, find_images(["a/**/*.tif", "[1].png"]))) == ["a/b/3.tif", "[1].png"]
    assert list(map(str, find_images([f"{tmp_path}/*.webp"]))) == [f"{tmp_path}/x.webp"]
    assert list(map(str, find_images(["nothing.png"]))) == ["nothing.png"]
    for path, what in (("*.bmp", "matches no file"), ("c", "holds no images"), ("", "is not a name")):
        Path("c").mkdir(exist_ok=True)
        with pytest.raises(RequestError) as error_info:
            find_images([path])
        endings = "images end in .png, .jpg, .jpeg, .bmp, .gif, .tif, .tiff, .webp."
        assert str(error_info.value) == f"{path or repr('')} {what}; {endings}"


def test_each_file_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a").mkdir()
    for name in ("a/1.png", "a/.hidden.png"):
        Path(name).touch()
    Path("a/folder.png").mkdir()
    Path("a/loop").symlink_to(".")
    Path("link.png").symlink_to("a/1.png")
    assert list(map(str, find_images(["a/1.png", "link.png", "a/../a/1.png", f"{tmp_path}/a/1.png", "a", "**"]))) == [
        "a/1.png"
    ]
    assert list(map(str, find_images(["~/a/1.png", "a/.hidden.png"]))) == [f"{tmp_path}/a/1.png", "a/.hidden.png"]


def test_an_image_that_can_not_be_used_is_loaded_as_zeros(tmp_path: Path) -> None:
    seven().save(tmp_path / "seven.png")
    loaded = load_image(tmp_path / "seven.png", make_reader("mnist", (1, 28, 28)), (1, 28, 28))
    assert (loaded.path, loaded.error) == (tmp_path / "seven.png", None)
    np.testing.assert_array_equal(loaded.pixels, SEVEN[None])
    loaded = load_image(tmp_path / "seven.png", make_reader("none", (3, 32, 24)), (3, 32, 24))
    assert str(loaded.error) == "not 32 x 24 pixels; leave out --preprocess none"
    np.testing.assert_array_equal(loaded.pixels, np.zeros((3, 32, 24), dtype=np.uint8))
