"""Records of a classification image set: its facts before the images are read, and the images in memory."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from mnist_amp.errors import RequestError

DIGITS = tuple("0123456789")  # the classes of MNIST and sets like it


class Facts(NamedTuple):
    """What is known of a data set before its images are read.

    Attributes:
        classes: a name for each label, in the order of the labels.
        image_shape: channels, height and width of each image.
        train_size: number of training images, from which validation images are held out.
        test_size: number of test images.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_size: int
    test_size: int


class ImageSet(NamedTuple):
    """Images (N, C, H, W) uint8 and their labels (N,) int64."""

    images: Tensor
    labels: Tensor


class Source(Protocol):
    """A data set that can be read into memory."""

    def prepare(self) -> None:
        """Make the files readable, and download what is missing. Several processes may do it at the same time.

        Raises:
            RequestError: files are missing or wrong, and the message names them.
        """

    def facts(self) -> Facts:
        """Return the facts of the prepared data set.

        Raises:
            RequestError: the files can't be read, or the images have different sizes and no size is given.
        """

    @property
    def test_seed(self) -> int | None:
        """The seed of the choice of the test images; None if the data set has test images of its own."""
        return None

    def is_read(self, *, train: bool) -> bool:
        """Whether `load` returns images that are in memory already."""
        return False

    def load(self, *, train: bool) -> ImageSet:
        """Read the training or the test set into one tensor; the rest that this takes does not grow with the images.

        A set that is read in threads leaves torch's inference mode: they are not in it, so they could not write to the
        tensor.

        Raises:
            RequestError: an image or a label can't be read.
        """

    def examples(self, number: int) -> Tensor:
        """Return at least this many training images, or all, at equal distances: (N, C, H, W) uint8.

        Raises:
            RequestError: as `load`.
        """
        images = self.load(train=True).images
        return images[:: max(len(images) // number, 1)]


def check_labels(labels: Tensor, classes: Sequence[str], where: str) -> None:
    """Refuse labels (N,) that are no index of `classes`; `where` begins the message."""
    wrong = (labels < 0) | (labels >= len(classes))
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise RequestError(
            f"{where} has the label {int(labels[index])} at index {index}, but its {len(classes)} classes have the "
            f"labels 0 to {len(classes) - 1}. Correct the label or the names of the classes."
        )
