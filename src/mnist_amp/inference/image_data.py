"""The user's image files as a LightningDataModule, for `predict`."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.data.image_set import DIGITS
from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.data.parallel import map_in_threads
from mnist_amp.images import array_files
from mnist_amp.images.files import class_index, find_images, read_frames
from mnist_amp.images.mnist_form import ImageError, NoInkError
from mnist_amp.images.readers import Prepared, Preprocess, make_reader
from mnist_amp.wording import counted, listed, printable

PROGRESS_BAR = 100  # files from which on a progress bar is shown


@dataclass(frozen=True)
class LoadedImage:
    """An image that the network scores, or one of the digits in an image.

    Attributes:
        path: of the file.
        page: of the file, or row of its array, from 1; None if the file has one image.
        digit: in reading order, from 1; None if the image is scored as a whole.
        row: that the digit is in, from 1.
        is_photograph: whether a digit was found in a photograph, which may as well show something else.
        pixels: (C, H, W) uint8; zeros if the image can't be used.
        notes: what may be wrong with the image; mostly empty.
        label: the index of its class, as its folder or file tells; None if it does not.
        error: why the image can't be used; None if it can.
    """

    path: Path
    page: int | None
    digit: int | None
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    label: int | None = None
    error: ImageError | None = None
    row: int = 1
    is_photograph: bool = False

    @property
    def image(self) -> str:
        """The name of the image that it is, or that the digit is in."""
        part = "row" if self.path.suffix.lower() in array_files.SUFFIXES else "page"
        return printable(self.path) + (f", {part} {self.page}" if self.page else "")

    @property
    def noun(self) -> str:
        """Its name in a count: `table` or `array` if it stands for a file of images that can't be read."""
        if self.error is None or self.page is not None or self.path.suffix.lower() not in array_files.SUFFIXES:
            return "image"
        return "table" if self.path.suffix.lower() == ".csv" else "array"

    @property
    def name(self) -> str:
        return self.image + (f", digit {self.digit}" if self.digit else "")


class ImageDataModule(MemoryDataModule):
    """Images from files, in the form that a network takes, on the device that scores them.

    Args:
        paths: files, folders and patterns, see `find_images`.
        preprocess: `mnist`, `resize` or `none`, see `make_reader`.
        batch_size: images per batch.
        image_shape: channels, height and width that the network takes.
        normalization: that the network was trained with.
        classes: names of the network's classes, in the order of the labels.
        ink_on_paper: whether the network takes light ink on a dark background.

    Attributes:
        found: the files, and those of the folders that were left out.
        loaded: the N images and digits of the files, or the reasons why these can't be used; set by `setup`.
        images: (N, C, H, W) uint8; zeros for an image that can't be used.

    Raises:
        RequestError: a path names no image.

    Examples:
        >>> data = ImageDataModule(["scans/*.png"], preprocess="mnist", batch_size=64)
        >>> module = LitClassifier.load_from_checkpoint("best.ckpt")
        >>> probabilities = torch.cat(Trainer(logger=False).predict(module, datamodule=data))  # (N, 10)
    """

    def __init__(
        self,
        paths: list[str],
        preprocess: Preprocess,
        batch_size: int,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        normalization: Normalization = TO_UNIT,
        classes: tuple[str, ...] = DIGITS,
        *,
        ink_on_paper: bool = False,
    ) -> None:
        super().__init__()
        self.found, self.batch_size, self.shrink = find_images(paths, classes), batch_size, preprocess == "mnist"
        self.read = make_reader(preprocess, image_shape, ink_on_paper=ink_on_paper)
        self.image_shape, self.normalization, self.classes = image_shape, normalization, classes
        self.loaded: list[LoadedImage] = []

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        files = self.found.files
        # None: shown only in a terminal
        hidden = None if len(files) >= PROGRESS_BAR and self.trainer.is_global_zero else True
        loaded = map_in_threads(lambda path: list(self._load(path)), files)
        shown = tqdm(loaded, "Reading", len(files), unit="file", disable=hidden, file=sys.stderr)
        self.loaded = [image for images in shown for image in images]
        pixels = torch.from_numpy(np.stack([image.pixels for image in self.loaded]))
        self.images = pixels.to(self.trainer.strategy.root_device)
        self.labels = torch.zeros(len(pixels), dtype=torch.int64, device=self.images.device)  # the Trainer needs them

    def _load(self, path: Path) -> Iterator[LoadedImage]:
        """Read the images of a file, and the digits in them. An image that can't be used is one of zeros."""
        unusable = np.zeros(self.image_shape, dtype=np.uint8)
        label, page = self.found.labels.get(path), None
        try:
            for frame in read_frames(path, shrink=self.shrink):
                page, label = frame.page, label if frame.label is None else class_index(frame.label, self.classes)
                loaded = partial(LoadedImage, path, page, label=label)
                found = self._parts(frame.image)
                if isinstance(found, ImageError):
                    yield loaded(None, unusable, error=found)
                    continue
                for digit, part in enumerate(found, 1):
                    number = digit if len(found) > 1 else None
                    yield loaded(number, part.pixels, part.notes, row=part.row, is_photograph=part.is_photograph)
        except ImageError as error:  # the rest of the file can't be read
            yield LoadedImage(path, page and page + 1, None, unusable, label=label, error=error)

    def _parts(self, image: Image.Image | ImageError) -> list[Prepared] | ImageError:
        """Return the parts of an image that are scored; or why it can't be, so that the other images are."""
        if isinstance(image, ImageError):
            return image
        try:
            return self.read(image)
        except ImageError as error:
            return error
        except Exception as error:  # of OpenCV, or of too little memory
            return ImageError(f"can't be read: {str(error).strip() or type(error).__name__}")

    def unreadable(self) -> list[LoadedImage]:
        """Return the images that can't be scored for another reason than that they are empty."""
        return [image for image in self.loaded if image.error and not isinstance(image.error, NoInkError)]


def counted_images(images: Iterable[LoadedImage]) -> str:
    """Return how many images, tables and arrays there are, such as `2 images and 1 table`."""
    nouns = Counter(image.noun for image in images)
    return listed([counted(number, noun) for noun, number in nouns.items()])
