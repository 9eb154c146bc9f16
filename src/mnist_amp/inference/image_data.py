"""Picture files as a LightningDataModule, for `predict`."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.inference import image_files

MANY = 100  # files, from which on there is a progress bar
FORMS = {"mnist": image_files.mnist_form, "none": image_files.as_is}


class ImageDataModule(MemoryDataModule):
    """Pictures of digits from files, as images like MNIST's on the device that scores them.

    Args:
        paths: files, folders and patterns, see `image_files.found`.
        preprocess: `mnist` brings the pictures into MNIST's form, `none` takes those of 28 x 28 as they are.
        batch_size: images per batch.

    Attributes:
        files: the pictures' files, N of them.
        images: (N, 28, 28) uint8; nothing but paper for a file that can't be scored.
        problems: why those can't, by their place in `files`.
    """

    def __init__(self, paths: list[str], preprocess: Literal["mnist", "none"], batch_size: int) -> None:
        super().__init__()
        self.files, self.form, self.batch_size = image_files.found(paths), FORMS[preprocess], batch_size
        self.problems: dict[int, image_files.ImageError] = {}

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        hidden = None if len(self.files) >= MANY and self.trainer.is_global_zero else True  # None: but in a terminal
        files = tqdm(self.files, "Reading", unit="picture", disable=hidden, file=sys.stderr)
        images = [self._image(place, file) for place, file in enumerate(files)]
        self.images = torch.from_numpy(np.stack(images)).to(self.trainer.strategy.root_device)
        self.labels = torch.zeros(len(images), dtype=torch.int64, device=self.images.device)  # they are not known

    def _image(self, place: int, file: Path) -> NDArray[np.uint8]:
        try:
            return self.form(image_files.read(file))
        except image_files.ImageError as problem:
            self.problems[place] = problem
            return np.zeros((image_files.SIDE, image_files.SIDE), dtype=np.uint8)

    def unreadable(self) -> dict[str, image_files.ImageError]:
        """Return what is wrong with the files that are no picture that can be scored, by name."""
        return {
            image_files.printable(self.files[place]): problem
            for place, problem in self.problems.items()
            if not isinstance(problem, image_files.NoInkError)
        }
