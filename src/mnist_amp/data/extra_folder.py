"""Images of the user's own that a network is trained on beside a data set, such as the digits that it has misread."""

from pathlib import Path

import torch
from torch import Tensor

from mnist_amp.data.decoding import read_header
from mnist_amp.data.folder_source import read_samples
from mnist_amp.data.image_folder import list_extra
from mnist_amp.data.image_form import are_dark_on_light
from mnist_amp.data.image_set import ImageSet
from mnist_amp.errors import RequestError, warn
from mnist_amp.wording import counted

TOO_DARK = 10  # times the share of images that are dark on light in the data set: more are a mistake
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
        self.folder, self.samples, self.image_shape = folder, list_extra(folder, classes), image_shape
        height, width = image_shape[1:]
        for sample in () if resize else self.samples:
            header = read_header(sample.path)
            if (header.height, header.width) != (height, width):
                # photographs that are only made small do not become like MNIST's images
                resizing = "" if image_shape == (1, 28, 28) else ", or resize all of them with --data.image_size"
                raise RequestError(
                    f"{sample.path} has {header.height} x {header.width} pixels, but the images of the data set have "
                    f"{height} x {width}. Bring yours into this form with mnist-amp predict --images and "
                    f"--save_images{resizing}."
                )

    def __len__(self) -> int:
        return len(self.samples)

    def append_to(self, images: ImageSet) -> ImageSet:
        """Return a data set with these images after its own, and warn of dark ink beside a data set of light ink."""
        own = read_samples(self.samples, self.image_shape)
        dark = sum(int(are_dark_on_light(block).sum()) for block in torch.split(own.images, 256))
        sample = images.images[:: max(len(images.images) // 1000, 1)]
        if dark > TOO_DARK * len(self) * float(are_dark_on_light(sample).float().mean()):
            warn(
                f"{dark:,} of {counted(len(self), 'image')} of {self.folder} are dark on a light background, but those "
                "of the data set are light on a dark one. Bring your images into that form with mnist-amp "
                "predict --images and --save_images."
            )
        return ImageSet(*(torch.cat(parts) for parts in zip(images, own, strict=True)))

    def indices(self, start: int, others: int) -> Tensor:
        """Return the indices of these images, which begin at `start`, to train on them beside `others` images.

        They are repeated until they are a tenth of all, so that few of them count as well.
        """
        repeats = max(round(others / (EXTRA_SHARE - 1) / len(self)), 1)
        return torch.arange(start, start + len(self)).repeat(repeats)
