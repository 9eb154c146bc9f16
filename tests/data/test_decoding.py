import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_amp.data import decoding
from mnist_amp.data.decoding import KNOWN_FORMATS, Header, is_image, read_header, read_pixels
from mnist_amp.errors import RequestError
from tests.data.image_files import HAS_AVIF


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "tiff", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossless_formats(tmp_path: Path, suffix: str, mode: str) -> None:
    image = Image.new(mode, (3, 2), 0)
    image.putpixel((2, 1), 200 if mode == "L" else (255, 0, 0))
    path = saved(tmp_path / f"a.{suffix}", image, **({"lossless": True} if suffix == "webp" else {}))
    grey = mode == "L" and suffix not in ("webp", "gif")  # WebP has no grey images, and this GIF has a palette
    expected = torch.zeros(1 if grey else 3, 2, 3, dtype=torch.uint8)
    expected[:, 1, 2] = 200 if mode == "L" else torch.tensor([255, 0, 0], dtype=torch.uint8)
    assert read_header(path) == Header(2, 3, grey)
    assert torch.equal(read_pixels(path), expected)


def test_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("L", (8, 8), 128))
    assert read_pixels(path).tolist() == [[[128] * 8] * 8]
    assert read_header(path) == Header(8, 8, True)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("LA", (10, 0), [255]),
        ("LA", (10, 255), [10]),
        ("1", 1, [255]),
    ],
)
def test_transparent_parts_are_white(tmp_path: Path, mode: str, colour: tuple[int, ...], expected: list[int]) -> None:
    path = saved(tmp_path / "a.png", Image.new(mode, (1, 1), colour))
    assert read_pixels(path).flatten().tolist() == expected
    assert read_header(path).grey == (len(expected) == 1)


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    assert read_pixels(saved(tmp_path / "a.png", image))[:, 0, 0].tolist() == [9, 8, 7]


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    path = saved(tmp_path / "a.png", image, transparency=1)
    assert read_pixels(path)[:, 0, 0].tolist() == [255, 255, 255]


def test_16_bits_become_8(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 256, 65535]], np.uint16)))
    assert read_pixels(path).tolist() == [[[0, 1, 255]]]
    assert read_header(path) == Header(1, 3, True)


UPRIGHT = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, UPRIGHT),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[3, 6], [2, 5], [1, 4]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[4, 1], [5, 2], [6, 3]]),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, stored: list[list[int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.array(stored, np.uint8))
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    assert read_pixels(path)[0].tolist() == UPRIGHT
    assert read_header(path)[:2] == (2, 3)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    image = Image.new("L", (3, 2), 7)
    for name, kind in (("a", "PNG"), ("b.jfif", "PNG"), ("c.heic", "JPEG"), ("d.JPG", "WEBP")):
        image.save(tmp_path / name, kind)
        assert is_image(tmp_path / name)
        assert read_header(tmp_path / name)[:2] == (2, 3)
    (tmp_path / "text").write_text("text", encoding="utf-8")
    for name, start in {"bmp": b"BM", "gif": b"GIF8", "jpeg": b"\xff\xd8\xff", "tiff": b"II*\0"}.items():
        (tmp_path / f"text of {name}").write_bytes(start + b" and more text")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    texts = ("text", "text of bmp", "text of gif", "text of jpeg", "text of tiff")
    assert [name for name in (*texts, "empty", "folder", "missing", "a.pdf") if is_image(tmp_path / name)] == []


def test_without_a_suffix_an_image_that_can_not_be_decoded_is_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "large", "PNG")
    (tmp_path / "heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert is_image(tmp_path / "large")
    assert is_image(tmp_path / "heic")


@pytest.mark.skipif(not HAS_AVIF, reason="needs Pillow 11.3")
def test_avif(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.avif", Image.new("RGB", (8, 6), (0, 200, 0)), quality=100)
    assert read_header(path) == Header(6, 8, False)
    assert (read_pixels(path)[:, 3, 3] - torch.tensor([0, 200, 0])).abs().max() <= 3


def test_heic(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").from_pillow(Image.new("RGB", (64, 66), (0, 200, 0))).save(tmp_path / "a.heic")
    assert read_header(tmp_path / "a.heic") == Header(66, 64, False)
    assert (read_pixels(tmp_path / "a.heic")[:, 3, 3] - torch.tensor([0, 200, 0])).abs().max() <= 3


def test_a_jpeg_of_too_many_pixels_is_read_at_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    path = saved(tmp_path / "a.jpg", Image.new("L", (24, 16), 128))
    assert read_header(path) == Header(8, 12, True)
    assert read_pixels(path).tolist() == [[[128] * 12] * 8]
    with pytest.raises(RequestError) as error:
        read_header(saved(tmp_path / "a.png", Image.new("L", (10, 10))))
    assert str(error.value) == (
        f"{tmp_path / 'a.png'} can't be read as an image: more than 99 pixels; scale it down. Repair it or move it "
        "away."
    )


def test_of_a_jpeg_of_several_scans_all_pixels_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libjpeg keeps all of them in memory, even if it decodes a fraction."""
    image = Image.new("RGB", (24, 16), (9, 8, 7))
    progressive = saved(tmp_path / "a.jpg", image, progressive=True)
    content = saved(tmp_path / "b.jpg", image).read_bytes()
    scan = content.index(b"\xff\xda\0\x0c\3")
    # the first scan has one of three components
    one = content[:scan] + b"\xff\xda\0\x08\1" + content[scan + 5 : scan + 7] + content[scan + 11 :]
    (tmp_path / "c.jpg").write_bytes(one)
    for path in (progressive, tmp_path / "c.jpg"):
        assert read_header(path) == Header(16, 24, False)
    with decoding.open_image(progressive, side=4) as opened:
        assert opened.size == (6, 4)  # a fraction is faster
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    assert read_header(tmp_path / "b.jpg") == Header(8, 12, False)
    for path in (progressive, tmp_path / "c.jpg"):
        with pytest.raises(RequestError, match="more than 99 pixels; scale it down"):
            read_header(path)


@pytest.mark.parametrize("read", [read_header, read_pixels])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, read: object) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(RequestError) as error:
        read(tmp_path / "a.png")  # type: ignore[operator]
    assert str(error.value) == (
        f"{tmp_path / 'a.png'} can't be read as an image: not an image in a known format ({KNOWN_FORMATS}). "
        "Repair it or move it away."
    )


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:2000])
    assert read_header(path) == Header(64, 64, True)
    with pytest.raises(RequestError) as error:
        read_pixels(path)
    assert str(error.value).startswith(f"{path} can't be read as an image: ")
    assert str(error.value).endswith(". Repair it or move it away.")


def test_32_bits_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.new("F", (1, 1), 0.5))
    with pytest.raises(RequestError) as error:
        read_pixels(path)
    assert str(error.value) == (
        f"{path} can't be read as an image: pixels of 32 bits (mode F); save it with 8 bits. Repair it or move it away."
    )
