"""A folder with images by class: which files it has, their labels, and which of them are the test set."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from mnist_amp.data.class_folders import folder_labels, folder_names
from mnist_amp.data.decoding import SUFFIXES, is_image
from mnist_amp.errors import RequestError

TEST_SHARE = 10  # one image in this many is a test image, if the folder has no folder `test`


class Sample(NamedTuple):
    """An image file and its label."""

    path: Path
    label: int


class Listing(NamedTuple):
    """The names of the classes, and the files of the training and test set, sorted by class and name.

    Attributes:
        test_seed: seed of the choice of the test images; None if they have a folder of their own.
    """

    classes: tuple[str, ...]
    train: list[Sample]
    test: list[Sample]
    test_seed: int | None = None


def list_images(folder: Path, seed: int) -> Listing:
    """List the images of a folder.

    The folder has the form FOLDER/train/CLASS/IMAGE and FOLDER/test/CLASS/IMAGE, or FOLDER/CLASS/IMAGE. In the second
    form, a tenth of the images of each class is the test set; which ones depends on the seed and the names alone.
    Hidden files and folders are left out, and so are files that are no images, see `decoding.is_image`.

    Raises:
        RequestError: the folder doesn't have this form, a class has no images, or there is only one class.
    """
    try:
        train, test = folder / "train", folder / "test"
        if train.is_dir() and test.is_dir():
            return _list_two(train, test)
        if any(_is_split(path) for path in (train, test)):
            found, missing = (train, test) if train.is_dir() else (test, train)
            raise RequestError(
                f"{folder} has a folder {found.name} with images by class, but no folder {missing.name}. Add the "
                f"folder {missing}, or name {found} with --data.folder: its images are then split into both sets."
            )
        return _list_one(folder, seed)
    except OSError as error:
        raise RequestError(
            f"{error.filename} can't be read: {error.strerror}. Name another folder with --data.folder."
        ) from error


def list_extra(folder: Path, classes: tuple[str, ...]) -> list[Sample]:
    """List the images of FOLDER/CLASS/IMAGE, where the folders are named by some of the classes of a data set.

    A folder may be empty, and a class may have no folder. The name of a folder is one of `folder_labels`.

    Raises:
        RequestError: a folder is named by none of the classes, or there are no images.
    """
    labels = folder_labels(classes)
    try:
        by_class = {path.name: _images(path) for path in _folders(folder)}
    except OSError as error:
        raise RequestError(
            f"{folder} can't be read: {error.strerror}. Name the folder of your images with --data.extra_folder, or "
            "leave them out with --data.extra_folder null."
        ) from error
    unknown = next((name for name, paths in by_class.items() if name not in labels), None)
    if unknown is not None:
        raise RequestError(
            f"{folder / unknown} is none of the classes of the data set: {', '.join(folder_names(classes))}. "
            "Rename the folder, or move it away."
        )
    if not any(by_class.values()):
        raise RequestError(
            f"{folder} has no images by class. Put them into folders that are named by their classes, such as "
            f"{folder / folder_names(classes)[0] / 'a.png'} ({', '.join(SUFFIXES)})."
        )
    return [Sample(path, labels[name]) for name, paths in by_class.items() for path in paths]


def _list_two(train: Path, test: Path) -> Listing:
    by_class = _by_class(train)
    classes = tuple(by_class)
    test_classes = [path.name for path in _folders(test)]
    unknown = [name for name in test_classes if name not in by_class]
    if unknown:
        raise RequestError(
            f"{test / unknown[0]} is a class without training images: {train} has the classes {', '.join(classes)}. "
            f"Add {train / unknown[0]}, or move the folder away."
        )
    test_images = {name: _images(test / name) for name in test_classes}
    listing = Listing(classes, _samples(by_class, classes), _samples(test_images, classes))
    if not listing.test:
        raise RequestError(f"{test} has no images by class. Add images such as {test / classes[0] / 'a.png'}.")
    return listing


def _list_one(folder: Path, seed: int) -> Listing:
    by_class = _by_class(folder)
    test = {name: _drawn(name, paths, seed) for name, paths in by_class.items()}
    train = {name: sorted(set(paths) - set(test[name])) for name, paths in by_class.items()}
    classes = tuple(by_class)
    listing = Listing(classes, _samples(train, classes), _samples(test, classes), seed)
    if not listing.test:
        raise RequestError(f"{folder} has one image of each class, so none is left for the test set. Add images.")
    return listing


def _drawn(name: str, paths: list[Path], seed: int) -> list[Path]:
    """Return the test images of a class: those with the smallest hashes, so an added file changes little."""
    count = max(1, len(paths) // TEST_SHARE) if len(paths) > 1 else 0
    ranked = sorted(paths, key=lambda path: hashlib.sha256(f"{seed}/{name}/{path.name}".encode()).digest())
    return sorted(ranked[:count])


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the images of a folder's folders by their sorted names."""
    found = {path.name: _images(path) for path in _folders(folder)}
    if not found or not any(found.values()):
        raise RequestError(
            f"{folder} has no images by class. It must have a folder for each class, with images such as "
            f"{folder / 'cat' / 'a.png'} ({', '.join(SUFFIXES)}), or the four files of MNIST's format. Name another "
            "folder with --data.folder."
        )
    empty = next((name for name, paths in found.items() if not paths), None)
    if empty is not None:
        raise RequestError(
            f"{folder / empty} has no images ({', '.join(SUFFIXES)}). Each folder in {folder} is a class: add images, "
            "or move the folder away."
        )
    if len(found) == 1:
        raise RequestError(f"{folder} has one class, {next(iter(found))}. Add a folder for each other class.")
    return found


def _samples(by_class: dict[str, list[Path]], classes: tuple[str, ...]) -> list[Sample]:
    return [Sample(path, label) for label, name in enumerate(classes) for path in by_class.get(name, [])]


def _is_split(folder: Path) -> bool:
    """Whether this folder has classes, and so is a training or test set, rather than a class of that name."""
    return folder.is_dir() and any(_images(path) for path in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_image(path))
