"""The user's image files as a LightningDataModule, for `predict`."""

import sys
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.inference.image_files import LoadedImage, find_images, load_image
from mnist_amp.inference.mnist_form import NoInkError, as_is, mnist_form

PROGRESS_BAR = 100  # files from which on a progress bar is shown
CONVERTERS = {"mnist": mnist_form, "none": as_is}


class ImageDataModule(MemoryDataModule):
    """Images of digits from files, in MNIST's form, on the device that scores them.

    Args:
        paths: files, folders and patterns, see `find_images`.
        preprocess: `mnist` brings the images into MNIST's form; `none` takes images of 28 x 28 pixels as they are.
        batch_size: images per batch.

    Attributes:
        files: paths of the N files.
        loaded: the N files with their images, or the reasons why these can't be used; set by `setup`.
        images: (N, 28, 28) uint8; zeros for an image that can't be used.

    Raises:
        RequestError: a path names no image.

    Examples:
        >>> data = ImageDataModule(["scans/*.png"], preprocess="mnist", batch_size=64)
        >>> module = LitSimpleNN.load_from_checkpoint("best.ckpt")
        >>> probabilities = torch.cat(Trainer(logger=False).predict(module, datamodule=data))  # (N, 10)
    """

    def __init__(self, paths: list[str], preprocess: Literal["mnist", "none"], batch_size: int) -> None:
        super().__init__()
        self.files, self.convert, self.batch_size = find_images(paths), CONVERTERS[preprocess], batch_size
        self.loaded: list[LoadedImage] = []

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        # None: shown only in a terminal
        hidden = None if len(self.files) >= PROGRESS_BAR and self.trainer.is_global_zero else True
        files = tqdm(self.files, "Reading", unit="image", disable=hidden, file=sys.stderr)
        self.loaded = [load_image(file, self.convert) for file in files]
        pixels = np.stack([image.pixels for image in self.loaded])
        self.images = torch.from_numpy(pixels).to(self.trainer.strategy.root_device)
        self.labels = torch.zeros(len(pixels), dtype=torch.int64, device=self.images.device)  # they are not known

    def unreadable(self) -> list[LoadedImage]:
        """Return the files that can't be scored for another reason than that their image is empty."""
        return [image for image in self.loaded if image.error and not isinstance(image.error, NoInkError)]
