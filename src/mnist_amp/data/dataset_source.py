"""A data set that a dataset class reads: torchvision's or the user's."""

from typing import Any

import torch

from mnist_amp.data.image_form import ImageForm
from mnist_amp.data.image_set import Facts, ImageSet, Source, check_labels
from mnist_amp.data.items import read_item, read_items
from mnist_amp.data.memory import check_memory


class DatasetSource(Source):
    """A data set whose class makes a training set and a test set.

    Opened datasets are kept until the first `load`, because many classes read all images when they are made.

    Args:
        name: of the class, for messages.
        form: the form that images are converted to.

    Attributes:
        in_threads: whether the items may be read at the same time.
    """

    in_threads = False

    def __init__(self, name: str, form: ImageForm) -> None:
        self.name, self.form = name, form
        self.opened: dict[bool, Any] = {}
        self.read: dict[bool, ImageSet] = {}
        self._facts: Facts | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is read, so that a process can be sent a source cheaply."""
        return {**self.__dict__, "opened": {}, "read": {}}

    def prepare(self) -> None:
        """Make the files readable; see `Source.prepare`."""
        raise NotImplementedError

    def open(self, *, train: bool) -> Any:
        """Make the dataset, without a download."""
        raise NotImplementedError

    def arrays(self, dataset: Any) -> ImageSet | None:
        """Return the images and labels of a dataset that has them in memory."""
        return None

    def classes(self, dataset: Any) -> tuple[str, ...] | None:
        """Return the names of the classes, if the training set knows them."""
        names = getattr(dataset, "classes", None)
        # Imagenette has several names for a class
        return tuple(str(name[0] if isinstance(name, tuple) else name) for name in names) if names else None

    def facts(self) -> Facts:
        if self._facts is None:
            self.prepare()
            train, test = self.dataset(train=True), self.dataset(train=False)
            shape, classes = self._shape(train), self.classes(train)
            if classes is None:
                check_memory(len(train), shape)
                self.read[True] = self._images(shape, train=True)
                classes = tuple(map(str, range(int(self.read[True].labels.max()) + 1)))
            self._facts = Facts(classes, shape, len(train), len(test))
        return self._facts

    def is_read(self, *, train: bool) -> bool:
        return train in self.read

    @torch.inference_mode(False)  # see `Source.load`
    def load(self, *, train: bool) -> ImageSet:
        facts = self.facts()
        self.opened.pop(not train, None)  # it may hold all of its images
        images = self.read.get(train) or self._images(facts.image_shape, train=train)
        check_labels(images.labels, facts.classes, f"The {'training' if train else 'test'} set of {self.name}")
        self.opened.clear()
        self.read.clear()
        return images

    def dataset(self, *, train: bool) -> Any:
        if train not in self.opened:
            self.opened[train] = self.open(train=train)
        return self.opened[train]

    def _shape(self, train: Any) -> tuple[int, int, int]:
        """Return the shape of the converted images: that of the first image, if it is not given."""
        if self.form.size is not None and self.form.channels is not None:
            return self.form.shape(self.form.channels, *self.form.size)
        arrays = self.arrays(train)
        first = read_item(train, 0, f"the training set of {self.name}")[0] if arrays is None else arrays.images[0]
        channels, height, width = first.shape
        return self.form.shape(channels, height, width)

    def _images(self, shape: tuple[int, int, int], *, train: bool) -> ImageSet:
        dataset = self.dataset(train=train)
        arrays = self.arrays(dataset)
        if arrays is not None:
            return ImageSet(self.form.apply(arrays.images), arrays.labels)
        name = f"the {'training' if train else 'test'} set of {self.name}"
        return read_items(dataset, name, shape, self.form, in_threads=self.in_threads)
