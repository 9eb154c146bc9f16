"""The user's image files as a LightningDataModule, for `predict`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.data.image_set import DIGITS
from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.inference.image_files import class_index, find_images, read_frames
from mnist_amp.inference.image_readers import Preprocess, make_reader
from mnist_amp.inference.mnist_form import ImageError, NoInkError

PROGRESS_BAR = 100  # files from which on a progress bar is shown


@dataclass(frozen=True)
class LoadedImage:
    """A row: a file or a part of it, and its image in the form that the network takes.

    Attributes:
        path: of the file.
        pixels: (C, H, W) uint8; zeros if the image can't be used.
        error: why the image can't be used; None if it can.
        page: number of the page, frame or row in the file; None if the file has one image.
        label: the index of the image's class, if it is known.
        notes: on what may be wrong with the image.
    """

    path: Path
    pixels: NDArray[np.uint8]
    error: ImageError | None
    page: int | None = None
    label: int | None = None
    notes: tuple[str, ...] = ()


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
        found: the files.
        loaded: their N images, or the reasons why these can't be used; set by `setup`.
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
        self.found, self.batch_size = find_images(paths, classes), batch_size
        self.read = make_reader(preprocess, image_shape, ink_on_paper=ink_on_paper)
        self.shrink = preprocess == "mnist"
        self.image_shape, self.normalization, self.classes = image_shape, normalization, classes
        self.loaded: list[LoadedImage] = []

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        # None: shown only in a terminal
        hidden = None if len(self.found.files) >= PROGRESS_BAR and self.trainer.is_global_zero else True
        files = tqdm(self.found.files, "Reading", unit="image", disable=hidden, file=sys.stderr)
        self.loaded = [row for file in files for row in self._rows(file)]
        pixels = torch.from_numpy(np.stack([image.pixels for image in self.loaded]))
        self.images = pixels.to(self.trainer.strategy.root_device)
        self.labels = torch.zeros(len(pixels), dtype=torch.int64, device=self.images.device)  # they are not known

    def unreadable(self) -> list[LoadedImage]:
        """Return the files that can't be scored for another reason than that their image is empty."""
        return [image for image in self.loaded if image.error and not isinstance(image.error, NoInkError)]

    def _rows(self, file: Path) -> Iterator[LoadedImage]:
        zeros = np.zeros(self.image_shape, dtype=np.uint8)
        page: int | None = None
        try:
            for frame in read_frames(file, shrink=self.shrink):
                page = frame.page
                label = self.found.labels.get(file) if frame.label is None else class_index(frame.label, self.classes)
                try:
                    if isinstance(frame.image, ImageError):
                        raise frame.image
                    for prepared in self.read(frame.image):
                        yield LoadedImage(file, prepared.pixels, None, page, label, prepared.notes)
                except ImageError as error:
                    yield LoadedImage(file, zeros, error, page, label)
        except ImageError as error:
            yield LoadedImage(file, zeros, error)
