"""The user's image files: found by name, and read."""

import io
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from mnist_amp.data import decoding
from mnist_amp.data.class_folders import folder_names
from mnist_amp.errors import RequestError
from mnist_amp.images.files import (
    Frame,
    class_index,
    find_images,
    left_out_files,
    plain,
    read_frames,
    read_image,
)
from mnist_amp.images.mnist_form import ImageError, NoInkError, mnist_form
from tests.data.image_files import HAS_AVIF
from tests.images.test_mnist_form import SEVEN, apart, apart_except_a_shift, seven


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
        pytest.param("AVIF", {"quality": 95}, marks=pytest.mark.skipif(not HAS_AVIF, reason="needs Pillow 11.3")),
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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", *(["AVIF"] if HAS_AVIF else [])])
def test_exif_rotation(orientation: int, stored: Image.Transpose, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = seven().transpose(stored)
    assert apart(mnist_form(reread(encoded(turned, kind, exif=exif.tobytes(), quality=95))), SEVEN) < 2
    assert apart(mnist_form(turned), SEVEN) > 20


def heic(*images: Image.Image) -> bytes:
    """Return a HEIC file of these images; its test is skipped without pillow-heif."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file, buffer = pillow_heif.HeifFile(), io.BytesIO()
    for image in images:
        file.add_from_pillow(image)
    file.save(buffer, quality=95)
    return buffer.getvalue()


def test_heic() -> None:
    assert apart(mnist_form(reread(heic(seven()))), SEVEN) < 2


def test_a_format_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    for brand, message in (
        (b"heic", r"^HEIC needs the package pillow-heif: pip install 'mnist-amp\[images\]'$"),
        (b"avif", r"^AVIF needs Pillow 11.3 or newer$"),
    ):
        with pytest.raises(ImageError, match=message):
            reread(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand)
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", SimpleNamespace(SUPPORTED=False))
    with pytest.raises(ImageError, match=r"^AVIF needs a build of Pillow with AVIF$"):
        reread(b"\0\0\0\x14ftypmif1\0\0\0\0avif")
    with pytest.raises(ImageError, match=r"^not an image in a known format"):
        reread(b"\0\0\0\x18ftypisom\0\0\0\0mp41avc1")  # a film


def page_files(*pages: Image.Image) -> list[tuple[str, bytes]]:
    """Return files with these pages, in each format that has several."""
    several: dict[str, Any] = {"save_all": True, "append_images": pages[1:]}
    lossless: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
    kinds = ("TIFF", "GIF", "WEBP", "PNG", *(["AVIF"] if HAS_AVIF else []))
    return [(kind, encoded(pages[0], kind, **several, **lossless.get(kind, {}))) for kind in kinds]


def test_each_page_is_an_image(tmp_path: Path) -> None:
    blank = Image.new("RGB", (100, 100), "white")
    for kind, content in page_files(blank, seven(), blank):
        (tmp_path / "pages").write_bytes(content)
        frames = list(read_frames(tmp_path / "pages"))
        assert [frame.page for frame in frames] == [1, 2, 3], kind
        assert apart(mnist_form(usable(frames[1])), SEVEN) < 2, kind
        for frame in (frames[0], frames[2]):
            with pytest.raises(NoInkError):
                mnist_form(usable(frame))
    (tmp_path / "pages").write_bytes(heic(blank, seven()))
    frames = list(read_frames(tmp_path / "pages"))
    assert [frame.page for frame in frames] == [1, 2]
    assert apart(mnist_form(usable(frames[1])), SEVEN) < 2


def usable(frame: Frame) -> Image.Image:
    assert isinstance(frame.image, Image.Image)
    return plain(frame.image)


def test_a_file_of_one_image_has_no_page_number(tmp_path: Path) -> None:
    for _, content in page_files(seven()):
        (tmp_path / "page").write_bytes(content)
        assert [(frame.page, frame.label) for frame in read_frames(tmp_path / "page")] == [(None, None)]


def test_smaller_copies_of_a_page_are_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
        for image, kind in ((seven(), 0), (seven().resize((20, 20)), 1), (seven(50), 2)):
            image.save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert [(frame.page, usable(frame).size) for frame in read_frames(tmp_path / "a.tif")] == [
        *((1, (100, 100)), (3, (50, 50))),
    ]


def test_the_second_image_of_a_phones_jpeg_is_not_read(tmp_path: Path) -> None:
    content = encoded(seven(), "MPO", save_all=True, append_images=[seven().resize((20, 20))])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    (tmp_path / "a.jpg").write_bytes(content)
    assert [(frame.page, usable(frame).size) for frame in read_frames(tmp_path / "a.jpg")] == [(None, (100, 100))]


def test_a_damaged_page_is_an_error_of_its_own(tmp_path: Path) -> None:
    pages = [Image.effect_noise((60, 60), sigma).convert("L") for sigma in (10, 20, 30)]
    content = bytearray(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw"))
    with Image.open(io.BytesIO(content)) as image:
        image.seek(1)
        start = image.getexif()[273]
    content[start : start + 400] = b"\xff" * 400
    (tmp_path / "a.tif").write_bytes(content)
    frames = list(read_frames(tmp_path / "a.tif"))
    assert [frame.page for frame in frames] == [1, 2, 3]
    assert [isinstance(frame.image, ImageError) for frame in frames] == [False, True, False]
    assert str(frames[1].image).startswith("can't be read: ")
    assert usable(frames[0]).tobytes() == pages[0].tobytes()
    assert usable(frames[2]).tobytes() == pages[2].tobytes()


def test_each_page_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9_999)
    (tmp_path / "a.tif").write_bytes(encoded(seven(50), "TIFF", save_all=True, append_images=[seven(100)]))
    assert [str(frame.image) for frame in read_frames(tmp_path / "a.tif")][1:] == [
        "more than 9,999 pixels; scale it down"
    ]


def test_a_large_jpeg_is_decoded_at_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 999_999)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit is not used
    seven(1600).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").size == (800, 800)
    assert read_image(tmp_path / "a.jpg", shrink=False).size == (800, 800)
    assert apart(mnist_form(read_image(tmp_path / "a.jpg")), mnist_form(seven(1600))) < 2
    seven(1000).save(tmp_path / "b.jpg")
    assert read_image(tmp_path / "b.jpg").size == (500, 500)
    seven(1000).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"^more than 999,999 pixels; scale it down$"):
        read_image(tmp_path / "b.png")


def test_a_small_digit_on_a_large_sheet() -> None:
    sheet = Image.new("RGB", (3000, 2500), "white")
    sheet.paste(seven(), (2000, 1200))
    assert apart_except_a_shift(mnist_form(reread(encoded(sheet, "JPEG"))), SEVEN) < 12


def test_invalid_exif_is_ignored() -> None:
    assert apart(mnist_form(reread(encoded(seven(), "PNG", exif=b"garbage"))), SEVEN) < 2


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    name = f"{tmp_path}/{'x' * 300}.png"
    with pytest.raises(RequestError, match=r"x\.png does not exist; images end in"):
        find_images([name])
    with pytest.raises(ImageError, match=r"^no such file$"):
        read_image(Path(name))


@pytest.mark.parametrize(
    ("given", "named"),
    [("[a.png, b.jpg]", "[a.png, b.jpg]"), (f"[{', '.join(['[0, 0]'] * 99)}]", f"[{'[0, 0], ' * 7}[0, ...")],
)
def test_a_list_of_names_or_pixels(given: str, named: str) -> None:
    with pytest.raises(RequestError) as error_info:
        find_images([given])
    assert str(error_info.value) == (
        f"{named} is not a file. Give each file as an argument of its own, as in --images a.png b.png; write an array "
        "of pixels to a .npy file, with np.save, and give that file."
    )


def test_files_that_are_not_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = encoded(seven(), "PNG")
    with pytest.raises(ImageError, match=r"^can't be read: ."):
        reread(complete[:200])
    with pytest.raises(
        ImageError, match=r"^not an image in a known format \(PNG, JPEG, BMP, GIF, TIFF, WEBP, AVIF, HEIC\)$"
    ):
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
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9_999)
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
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", *(["AVIF"] if HAS_AVIF else [])]),
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
    assert list(map(str, find_images(["a"]).files)) == ["a/1.JPG", "a/2.png", "a/b/3.tif"]
    assert list(map(str, find_images(["*.webp", "x.webp", "a/notes.txt"]).files)) == ["x.webp", "a/notes.txt"]
    assert list(map(str, find_images(["a/**/*.tif", "[1].png"]).files)) == ["a/b/3.tif", "[1].png"]
    assert list(map(str, find_images([f"{tmp_path}/*.webp"]).files)) == [f"{tmp_path}/x.webp"]
    for path, what in (
        ("*.bmp", "matches no file"),
        ("nothing.png", "does not exist"),
        ("c", "holds no images"),
        ("", "is not a name"),
    ):
        Path("c").mkdir(exist_ok=True)
        with pytest.raises(RequestError) as error_info:
            find_images([path])
        endings = (
            "images end in .png, .apng, .jpg, .jpeg, .jpe, .jfif, .bmp, .gif, .tif, .tiff, .webp, .avif, .heic, "
            ".heif, .hif."
        )
        assert str(error_info.value) == f"{path or repr('')} {what}; {endings}"


def test_files_that_are_left_out_are_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scan.pdf", "b/notes.txt", "b/film.MP4", ".hidden.pdf", ".git/1.png", "Thumbs.db", "b/desktop.ini"):
        Path("a", name).parent.mkdir(parents=True, exist_ok=True)
        Path("a", name).touch()
    for name in ("1.jfif", "2.JPE", "3.HEIC", "4.avif", "5.apng", "6.hif"):
        Path("a", name).touch()
    seven().save("a/IMG_0001", "PNG")
    Path("a/LICENSE").write_text("text", encoding="utf-8")
    Path("a/pixels.npz").touch()
    Path("a/train.csv").touch()
    Path("a/zlink").symlink_to(tmp_path)
    found = find_images(["a"])
    assert list(map(str, found.files)) == [
        *("a/1.jfif", "a/2.JPE", "a/3.HEIC", "a/4.avif", "a/5.apng", "a/6.hif", "a/IMG_0001"),
    ]
    unknown, named = "not an image in a known format", "images in an array or a table are read if the file is named"
    assert [(str(file), reason) for file, reason in found.left_out] == [
        *(("a/LICENSE", unknown), ("a/b/film.MP4", unknown), ("a/b/notes.txt", unknown)),
        *(("a/pixels.npz", named), ("a/scan.pdf", unknown), ("a/train.csv", named), ("a/zlink", "a link to a folder")),
    ]
    assert find_images(["a/scan.pdf", "a/pixels.npz", "a/*.csv"]).left_out == []
    assert left_out_files(found.left_out) == (
        "a/LICENSE, a/b/film.MP4, a/b/notes.txt and 1 more (not an image in a known format), "
        "a/pixels.npz, a/train.csv (images in an array or a table are read if the file is named), a/zlink (a link to a "
        "folder)"
    )
    with pytest.raises(RequestError, match=r"^a/b holds no images \(2 left out: a/b/film.MP4, a/b/notes.txt \(not an"):
        find_images(["a/b"])


def test_folders_named_by_a_class_give_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "mine/3/1.png",
        "mine/7/old/2.png",
        "mine/9/notes.txt",
        "mine/0.png",
        "other/7/3.png",
        "other/x/4.png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    digits = tuple("0123456789")
    expected = {Path("mine/3/1.png"): 3, Path("mine/7/old/2.png"): 7}
    assert find_images(["mine", "other"], digits).labels == expected
    assert find_images(["mine"], ("7", "3")).labels == {Path("mine/3/1.png"): 1, Path("mine/7/old/2.png"): 0}
    assert find_images(["mine"], ("x", "X")).labels == {}
    assert find_images(["mine"]).labels == {}
    assert find_images(["mine/7", "mine/3/1.png"], digits).labels == {}


def test_a_folder_that_is_no_class_among_others_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("7", "seven"):
        (tmp_path / name).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / name / "a.png")
    assert find_images([str(tmp_path)], tuple("0123456789")).labels == {}
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {tmp_path}/seven is named by none of the classes, so the classes of the images in "
        f"{tmp_path} are not known. Move it out of this folder, and their accuracy is reported.\n"
    )


def test_folders_that_save_images_has_written_give_labels(tmp_path: Path) -> None:
    classes = ("N/A", "cat", "Cat", "Cat")
    files = [tmp_path / name / "a.png" for name in folder_names(classes)]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert find_images([str(tmp_path)], classes).labels == dict(zip(files, range(4), strict=True))


def test_index_of_a_class() -> None:
    letters = ("N/A", "a", "b")
    assert [class_index(label, letters) for label in ("b", "B", "c", 2, 3, -1, "N/A")] == [2, 2, None, 2, None, None, 0]
    assert [class_index(label, ("7", "3", "A", "a")) for label in (7, 3, 2, "a", "A")] == [0, 1, 2, 3, 2]


def test_each_file_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a").mkdir()
    for name in ("a/1.png", "a/.hidden.png"):
        Path(name).touch()
    Path("a/folder.png").mkdir()
    Path("a/loop").symlink_to(".")
    Path("link.png").symlink_to("a/1.png")
    assert list(
        map(str, find_images(["a/1.png", "link.png", "a/../a/1.png", f"{tmp_path}/a/1.png", "a", "**"]).files)
    ) == ["a/1.png"]
    assert list(map(str, find_images(["~/a/1.png", "a/.hidden.png"]).files)) == [f"{tmp_path}/a/1.png", "a/.hidden.png"]
