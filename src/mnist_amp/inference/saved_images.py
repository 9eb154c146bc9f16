"""The user's images as the network saw them, saved in folders by guess: to look at, and to train on."""

from pathlib import Path

from PIL import Image

from mnist_amp.data.class_folders import cut_name, folder_names
from mnist_amp.errors import RequestError
from mnist_amp.inference.image_data import LoadedImage
from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.runs.atomic_files import describe_write_errors
from mnist_amp.wording import counted, printable


class SavedImages:
    """Two folders with a folder for each class: images without a note, and beside it `FOLDER_check`, those with one.

    An image is saved by its class, if that is known, else by its guess. `FOLDER` can be trained on once its images are
    in the folders of their true classes. It has a folder for each class.

    Args:
        folder: to write to; it must not exist, or be empty.
        classes: the name of each class, in the order of the labels.

    Raises:
        RequestError: a folder has files, which may be corrections, or can't be used.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        if folder.name in ("", ".."):  # such as `.`, which has a name in full
            folder = folder.resolve()
        if not folder.name:
            raise RequestError(f"{folder} has no name. Name a new folder with --save_images.")
        self.folder, self.check = folder, folder.with_name(f"{folder.name}_check")
        self.names = folder_names(classes)
        for path in (self.folder, self.check):
            _check_empty(path)

    def write(self, images: list[LoadedImage], tiles: list[Tile]) -> str:
        """Write the images that were scored, and return what was written, in words.

        Raises:
            RunError: a folder can't be written to.
        """
        counts = dict.fromkeys((self.folder, self.check), 0)
        with describe_write_errors(self.folder):
            for name in self.names:
                (self.folder / name).mkdir(parents=True)
            for row, (image, tile) in enumerate(zip(images, tiles, strict=True), 1):
                if tile.guess is None:
                    continue
                # a known class needs no guess; but of several digits, one at most is of the class
                is_clear = not tile.note if image.label is None else not (image.notes or image.digit)
                folder = self.folder if is_clear else self.check
                counts[folder] += 1
                label = tile.guess if image.label is None or image.digit else image.label
                file = folder / self.names[label] / f"{row:04}-{_file_name(image)}"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(tile.image).save(file)
        noted = f", {printable(self.check)}/ ({counted(counts[self.check], 'image')} to look at)"
        return f"{printable(self.folder)}/ ({counted(counts[self.folder], 'image')})" + (
            noted if counts[self.check] else ""
        )


def _check_empty(folder: Path) -> None:
    try:
        is_empty = next(folder.iterdir(), None) is None
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(
            f"{printable(folder)} can't be used: {error.strerror}. Name a new folder with --save_images."
        ) from error
    if not is_empty:
        raise RequestError(
            f"{printable(folder)} is not empty. Name a new folder with --save_images, so that no image that you have "
            "moved is overwritten."
        )


def _file_name(image: LoadedImage) -> str:
    """Return the name of the file that an image is saved in, such as `scan-p2-d3.png`."""
    page, digit = f"-p{image.page}" if image.page else "", f"-d{image.digit}" if image.digit else ""
    return f"{cut_name(image.path.stem)}{page}{digit}.png"
