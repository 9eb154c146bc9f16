"""The user's image files as a LightningDataModule, for `predict`."""

import sys

import numpy as np
import torch
from tqdm import tqdm

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.data.image_set import DIGITS
from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.inference.image_files import LoadedImage, find_images, load_image
from mnist_amp.inference.image_readers import Preprocess, make_reader
from mnist_amp.inference.mnist_form import NoInkError

PROGRESS_BAR = 100  # files from which on a progress bar is shown


class ImageDataModule(MemoryDataModule):
    """Images from files, in the form that a network takes, on the device that scores them.

    Args:
        paths: files, folders and patterns, see `find_images`.
        preprocess: `mnist`, `resize` or `none`, see `make_reader`.
        batch_size: images per batch.
        image_shape: channels, height and width that the network takes.
        normalization: that the network was trained with.
        classes: names of the network's classes, in the order of the labels.

    Attributes:
        files: paths of the N files.
        loaded: the N files with their images, or the reasons why these can't be used; set by `setup`.
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
    ) -> None:
        super().__init__()
        self.files, self.read, self.batch_size = find_images(paths), make_reader(preprocess, image_shape), batch_size
        self.image_shape, self.normalization, self.classes = image_shape, normalization, classes
        self.loaded: list[LoadedImage] = []

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        # None: shown only in a terminal
        hidden = None if len(self.files) >= PROGRESS_BAR and self.trainer.is_global_zero else True
        files = tqdm(self.files, "Reading", unit="image", disable=hidden, file=sys.stderr)
        self.loaded = [load_image(file, self.read, self.image_shape) for file in files]
        pixels = torch.from_numpy(np.stack([image.pixels for image in self.loaded]))
        self.images = pixels.to(self.trainer.strategy.root_device)
        self.labels = torch.zeros(len(pixels), dtype=torch.int64, device=self.images.device)  # they are not known

    def unreadable(self) -> list[LoadedImage]:
        """Return the files that can't be scored for another reason than that their image is empty."""
        return [image for image in self.loaded if image.error and not isinstance(image.error, NoInkError)]
