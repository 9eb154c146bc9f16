"""Images of the user's own that a network is trained on beside a data set, such as the digits that it has misread."""

from pathlib import Path

import torch
from torch import Tensor

from mnist_amp.data.decoding import read_header
from mnist_amp.data.folder_source import read_samples
from mnist_amp.data.image_folder import list_extra
from mnist_amp.data.image_set import ImageSet
from mnist_amp.errors import RequestError

EXTRA_SHARE = 10  # one image in this many of an epoch is the user's own; a few images are repeated for it


class ExtraFolder:
    """Images by class in a folder, for training beside a data set.

    Args:
        folder: with a folder of images for each class, or for some of them.
        classes: of the data set, in the order of the labels.
        image_shape: channels, height and width of the data set's images.
        resize: whether images of other sizes are resized; else they are refused.

    Raises:
        RequestError: the folder has no images, a folder that is no class, or images of another size.
    """

    def __init__(
        self, folder: Path, classes: tuple[str, ...], image_shape: tuple[int, int, int], *, resize: bool
    ) -> None:
        self.samples, self.image_shape = list_extra(folder, classes), image_shape
        height, width = image_shape[1:]
        for sample in () if resize else self.samples:
            header = read_header(sample.path)
            if (header.height, header.width) != (height, width):
                raise RequestError(
                    f"{sample.path} has {header.height} x {header.width} pixels, but the images of the data set have "
                    f"{height} x {width}. Bring yours into this form with mnist-amp predict --images and "
                    "--save_images, or resize all of them with --data.image_size."
                )

    def __len__(self) -> int:
        return len(self.samples)

    def append_to(self, images: ImageSet) -> ImageSet:
        """Return a data set with these images after its own."""
        both = zip(images, read_samples(self.samples, self.image_shape), strict=True)
        return ImageSet(*(torch.cat(parts) for parts in both))

    def indices(self, start: int, others: int) -> Tensor:
        """Return the indices of these images, which begin at `start`, to train on them beside `others` images.

        They are repeated until they are a tenth of all, so that few of them count as well.
        """
        repeats = max(round(others / (EXTRA_SHARE - 1) / len(self)), 1)
        return torch.arange(start, start + len(self)).repeat(repeats)
