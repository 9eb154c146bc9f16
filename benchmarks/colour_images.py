"""Random colour images with classes that can be learnt, for benchmarks: `--data.dataset colour_images.ColourImages`."""

import torch
from torch import Tensor

TEST = 1000  # images


class ColourImages:
    """Images (3, side, side) uint8 of 10 classes: noise around a pattern for each class, the same in each process.

    Args:
        root: unused; there are no files.
        train: whether these are the training images.
        size: the number of training images.
        side: height and width.
    """

    classes = tuple("0123456789")

    def __init__(self, root: str, train: bool = True, size: int = 10_000, side: int = 32) -> None:
        source = torch.Generator().manual_seed(0)
        patterns = torch.randint(0, 128, (len(self.classes), 3, side, side), dtype=torch.uint8, generator=source)
        source.manual_seed(1 if train else 2)
        number = size if train else TEST
        self.labels = torch.randint(0, len(self.classes), (number,), generator=source)
        self.images = torch.randint(0, 128, (number, 3, side, side), dtype=torch.uint8, generator=source)
        for image, label in zip(self.images, self.labels, strict=True):
            image += patterns[label]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])
