"""The user's image files: found by name, and read with Pillow."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mnist_amp.data.class_folders import folder_labels
from mnist_amp.data.decoding import SUFFIXES, FormatError, check_size, is_image, open_image
from mnist_amp.errors import RequestError, warn
from mnist_amp.images import array_files
from mnist_amp.images.array_files import Label, read_arrays
from mnist_amp.images.mnist_form import MAX_SIDE, ImageError
from mnist_amp.wording import printable

HIDDEN = ("desktop.ini", "thumbs.db")  # files of Windows, which marks them as hidden in no name
SHOWN = 3  # files left out for one reason that a message names
SHOWN_NAME = 60  # characters of a list that is given as a name
TIFF_KIND = 254  # the tag of a page's kind
SMALLER_OR_MASK = 1 | 4  # bits of this tag: the page is a smaller copy of another page, or its mask


@dataclass(frozen=True)
class FoundFiles:
    """The user's files.

    Attributes:
        files: each one once, in the order of the paths that name them.
        left_out: files in folders that are not read, and why; without hidden files.
        labels: the index of the class of each file whose folder is named by a class.
    """

    files: list[Path]
    left_out: list[tuple[Path, str]]
    labels: dict[Path, int]


@dataclass(frozen=True)
class Frame:
    """One image of a file.

    Attributes:
        image: upright, in the size and mode of the file; or why this page can't be read.
        page: number of the page, frame or row, from 1; None if the file has one image.
        label: the class that the file states, see `class_index`; None if it does not.
    """

    image: Image.Image | ImageError
    page: int | None = None
    label: Label | None = None


def find_images(paths: Iterable[str], classes: Sequence[str] = ()) -> FoundFiles:
    """Return the files that paths name: a file itself, a folder's images at any depth, or the files of a pattern.

    A file that is named twice, for instance by a link, is returned once. Hidden files are returned only if they are
    named, and so are arrays and tables.

    Args:
        paths: files, folders and patterns.
        classes: the names of the classes. If a folder has images in folders, and each of these folders is named by a
            class, the labels of these images are known.

    Raises:
        RequestError: a folder holds no images, no file matches a pattern, or a path is empty or does not exist.

    Examples:
        >>> find_images(["scans", "photos/*.jpg", "seven.png"]).files
        [PosixPath('scans/1.png'), PosixPath('scans/old/2.tif'), PosixPath('photos/a.jpg'), PosixPath('seven.png')]
    """
    files: dict[str, Path] = {}
    all_left_out: list[tuple[Path, str]] = []
    labels: dict[Path, int] = {}
    for given in map(os.path.expanduser, paths):
        path, is_folder = Path(given), bool(given) and os.path.isdir(given)
        if is_folder:
            found, left_out = _in_folder(path)
            all_left_out += left_out
            labels |= _labels(path, found, classes)
        elif has_magic(given) and not os.path.exists(given):
            found = sorted(Path(file) for file in glob(given, recursive=True) if os.path.isfile(file))
        else:
            found = [path] if os.path.exists(given) else []
        if not found:
            raise _no_images(given, left_out if is_folder else None)
        for file in found:
            files.setdefault(os.path.realpath(file), file)
    return FoundFiles(list(files.values()), all_left_out, labels)


def _no_images(given: str, left_out: list[tuple[Path, str]] | None) -> RequestError:
    """Return the error for a path without images; `left_out` are the files of a folder, None for another path."""
    if given.startswith("[") and given.endswith("]") and not os.path.exists(given):  # a list or an array of Python
        return RequestError(
            f"{given if len(given) <= SHOWN_NAME else given[:SHOWN_NAME] + ' ...'} is not a file. Give each file as an "
            "argument of its own, as in --images a.png b.png; write an array of pixels to a .npy file, with np.save, "
            "and give that file."
        )
    if left_out is not None:
        rest = f" ({len(left_out):,} left out: {left_out_files(left_out)})" if left_out else ""
        problem = f"holds no images{rest}"
    else:
        problem = "is not a name" if not given else "matches no file" if has_magic(given) else "does not exist"
    return RequestError(f"{printable(given) or repr('')} {problem}; images end in {', '.join(SUFFIXES)}.")


def left_out_files(left_out: Sequence[tuple[Path, str]]) -> str:
    """Return the first names and the reasons of files that are left out, see `FoundFiles`.

    >>> left_out_files([(Path("a.pdf"), "not an image in a known format"), (Path("old"), "a link to a folder")])
    'a.pdf (not an image in a known format), old (a link to a folder)'
    """
    names: dict[str, list[str]] = {}
    for file, reason in left_out:
        names.setdefault(reason, []).append(printable(file))
    parts = [
        ", ".join(group[:SHOWN]) + (f" and {len(group) - SHOWN:,} more" if len(group) > SHOWN else "") + f" ({reason})"
        for reason, group in names.items()
    ]
    return ", ".join(parts)


def class_index(label: Label, classes: Sequence[str]) -> int | None:
    """Return the index of the class that a label names; a number may also be the index. None if no class fits.

    >>> class_index("B", ["a", "b"]), class_index(1, ["a", "b"]), class_index("c", ["a", "b"])
    (1, 1, None)
    """
    name = str(label)
    if name in classes:
        return list(classes).index(name)
    if isinstance(label, int):
        return label if 0 <= label < len(classes) else None
    folded = [other.casefold() for other in classes]
    return folded.index(name.casefold()) if folded.count(name.casefold()) == 1 else None


def read_frames(path: Path, *, shrink: bool = True) -> Iterator[Frame]:
    """Read the images of a file: its pages, its frames or, of an array or a table, its rows.

    All frames of an animation are read. Smaller copies of a page of a TIFF are not, and neither is what a phone adds to
    the image of a JPEG.

    Args:
        path: of the file.
        shrink: whether a large JPEG is decoded at a fraction of its size, which is faster.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.

    Examples:
        >>> [frame.page for frame in read_frames(Path("three_pages.tif"))]
        [1, 2, 3]
    """
    with _reading(path):
        if path.suffix.lower() in array_files.SUFFIXES:
            yield from _read_rows(path)
            return
        with open_image(path, MAX_SIDE if shrink else None) as image:
            if (count := getattr(image, "n_frames", 1)) == 1:
                yield Frame(_upright(image))
                return
            for page in range(1, count + 1):
                if (frame := _read_page(path, image, page)) is not None:
                    yield frame


def read_image(path: Path, *, shrink: bool = True) -> Image.Image:
    """Read the first image of a file, in the mode L, RGB or RGBA; see `read_frames`.

    Raises:
        ImageError: as `read_frames`.

    Examples:
        >>> read_image(Path("photo.jpg"))
        <PIL.Image.Image image mode=RGB size=1008x756>
    """
    image = next(read_frames(path, shrink=shrink)).image
    if isinstance(image, ImageError):
        raise image
    return plain(image)


def _in_folder(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the images of a folder at any depth, and the other files with the reason; both without hidden ones."""
    images: list[Path] = []
    left_out: list[tuple[Path, str]] = []

    def unreadable(error: OSError) -> None:
        left_out.append((Path(error.filename), f"can't be read: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        left_out += [(Path(parent, name), "a link to a folder") for name in folders if Path(parent, name).is_symlink()]
        for file in (Path(parent, name) for name in names if not name.startswith(".") and name.lower() not in HIDDEN):
            if is_image(file):
                images.append(file)
            elif file.suffix.lower() in array_files.SUFFIXES:
                left_out.append((file, "images in an array or a table are read if the file is named"))
            else:
                left_out.append((file, "not an image in a known format"))
    return sorted(images), sorted(left_out)


def _labels(folder: Path, files: list[Path], classes: Sequence[str]) -> dict[Path, int]:
    """Return the labels of a folder's files, if each of its folders that holds images is named by a class."""
    names = {file: file.relative_to(folder).parts[0] for file in files if file.parent != folder}
    known = folder_labels(classes)
    labels = {file: known.get(name, class_index(name, classes)) for file, name in names.items()}
    unknown = next((names[file] for file, label in labels.items() if label is None), None)
    if unknown is None:
        return labels  # type: ignore[return-value]
    if any(label is not None for label in labels.values()):
        warn(
            f"{printable(folder / unknown)} is named by none of the classes, so the classes of the images in "
            f"{printable(folder)} are not known. Move it out of this folder, and their accuracy is reported."
        )
    return {}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file into ImageError."""
    if not os.path.isfile(path):
        raise ImageError("not a file" if os.path.exists(path) else "no such file")
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # damaged files cause errors of many types
        raise _image_error(error) from error


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, FormatError):
        return ImageError(str(error))
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError(f"can't be read: {reason}")


def _read_rows(path: Path) -> Iterator[Frame]:
    images = read_arrays(path)
    for row, pixels in enumerate(images.levels()):
        page = None if len(images.pixels) == 1 else row + 1
        yield Frame(Image.fromarray(pixels), page, None if images.labels is None else images.labels[row])


def _read_page(path: Path, image: Image.Image, page: int) -> Frame | None:
    """Return a page of an image that is open; None if it is a smaller copy or a mask of another page."""
    try:
        image.seek(page - 1)
        check_size(image)
        kind = getattr(image, "tag_v2", {}).get(TIFF_KIND, 0)
        return None if page > 1 and kind & SMALLER_OR_MASK else Frame(_upright(image), page)
    except Exception as error:  # damaged files cause errors of many types
        return Frame(_image_error(error), page)


def _upright(image: Image.Image) -> Image.Image:
    """Return an image, decoded and upright, that is independent of its file."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # invalid EXIF data cause errors of many types
        return image.copy()


def plain(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits in the mode L or RGB, or in RGBA if it has transparent parts.

    >>> plain(Image.new("I;16", (28, 28), 1000)).mode
    'L'
    """
    if image.mode.startswith(("I", "F")):  # 16 bits and more; Pillow would clip them at 255
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # the level of white: the lowest that cameras and scanners use and that is not exceeded
        tops = [1.0] * (image.mode == "F") + [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
        top = next((top for top in tops if values.max() <= top), values.max())
        return Image.fromarray((values * (255 / top)).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        image = image.convert("RGBA")
        return image.convert("RGB") if np.asarray(image)[..., 3].min() == 255 else image
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
