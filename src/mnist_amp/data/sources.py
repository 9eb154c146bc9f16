"""Data sets by name or folder. Begin here: `make_source` returns what `prepare`, `facts` and `load` are called on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mnist_amp.data.image_form import ImageForm, make_form
from mnist_amp.data.image_set import DIGITS, Facts, ImageSet, Source
from mnist_amp.errors import RequestError
from mnist_amp.wording import nearest

__all__ = ["Facts", "ImageSet", "Source", "make_source"]

TORCHVISION = "torchvision.datasets."


def make_source(
    data_dir: Path,
    dataset: str = "MNIST",
    dataset_args: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] | None = None,
    seed: int = 0,
) -> Source:
    """Return the source of a classification image set. Nothing is read or downloaded yet.

    Args:
        data_dir: torchvision's folder of data sets, its `root`.
        dataset: a set of torchvision's such as FashionMNIST, or a class of the user's such as my_package.MyDataset.
        dataset_args: further arguments for its class.
        folder: instead of `dataset`, a folder with images by class or with idx files.
        image_size: height and width that images are resized to; an int means both.
        channels: 1 converts to grey and 3 to RGB.
        seed: of the choice of test images, for a folder that has none.

    Raises:
        RequestError: there is no such set or folder, or an option does not go with it.

    Examples:
        >>> make_source(Path("data")).facts()[1:]
        ((1, 28, 28), 60000, 10000)
    """
    form, arguments = make_form(image_size, channels), dataset_args or {}
    if folder is not None:
        if dataset != "MNIST" or arguments:
            other = f"--data.dataset {dataset}" if dataset != "MNIST" else "--data.dataset_args"
            raise RequestError(f"--data.folder and {other} are two data sets. Give one of them.")
        from mnist_amp.data.folder_source import make_folder_source

        return make_folder_source(folder, form, seed)
    # only of one part, or this would be another class than the one that was asked for
    name = dataset.removeprefix(TORCHVISION)
    name = dataset if "." in name else name
    if name != "MNIST":
        return _make_named(data_dir, name, arguments, form)
    if arguments:
        raise RequestError(f"data.dataset_args has {next(iter(arguments))}, but MNIST takes none.")
    return MNISTSource(data_dir, form)


def _make_named(data_dir: Path, name: str, arguments: Mapping[str, Any], form: ImageForm) -> Source:
    # torchvision's classes and their readers are imported for these sets alone
    from mnist_amp.data.own_dataset import OwnSource
    from mnist_amp.data.torchvision_sets import SPECS, TorchvisionSource

    if name in SPECS:
        return TorchvisionSource(data_dir, name, arguments, form)
    if "." in name:
        return OwnSource(data_dir, name, arguments, form)
    known = ["MNIST", *SPECS]
    similar = nearest(name, known) or nearest(name.upper(), known)
    raise RequestError(
        f"data.dataset is {name}{similar}. It must be one of torchvision's {', '.join(known)}; or a class of your own, "
        "such as my_package.MyDataset. For a folder of images, give --data.folder instead."
    )


class MNISTSource(Source):
    """MNIST, from the package's verified archives; see `mnist.prepare` and `mnist.load` for errors.

    Args:
        data_dir: torchvision's folder of data sets.
        form: the form that images are converted to.
    """

    def __init__(self, data_dir: Path, form: ImageForm) -> None:
        self.data_dir, self.form = data_dir, form

    def prepare(self) -> None:
        from mnist_amp.data import mnist

        mnist.prepare(self.data_dir)

    def facts(self) -> Facts:
        return Facts(DIGITS, self.form.shape(1, 28, 28), 60_000, 10_000)

    def load(self, *, train: bool) -> ImageSet:
        from mnist_amp.data import mnist

        images, labels = mnist.load(self.data_dir, train=train)
        return ImageSet(self.form.apply(images.unsqueeze(1)), labels)
