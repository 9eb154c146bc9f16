"""torchvision's classification sets, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision import datasets

from mnist_amp.data.dataset_source import DatasetSource
from mnist_amp.data.downloads import download, locked
from mnist_amp.data.image_form import ImageForm
from mnist_amp.data.image_set import DIGITS, ImageSet
from mnist_amp.data.parameters import check_arguments, parameters
from mnist_amp.errors import RequestError


class Spec(NamedTuple):
    """How torchvision's class makes the training and the test set.

    Attributes:
        train: arguments for the training set.
        test: arguments for the test set.
        classes: names of the classes, where the class has none or none that are names.
        in_memory: whether the class has all images in `data`.
        downloads: whether the class takes `download`.
        fixed: further arguments that can't be given.
    """

    train: Mapping[str, Any]
    test: Mapping[str, Any]
    classes: tuple[str, ...] | None = None
    in_memory: bool = False
    downloads: bool = True
    fixed: tuple[str, ...] = ()


IN_MEMORY = Spec({"train": True}, {"train": False}, in_memory=True)
SPLIT = Spec({"split": "train"}, {"split": "test"})
TRAINVAL = Spec({"split": "trainval"}, {"split": "test"})
TRAIN_VAL = Spec({"split": "train"}, {"split": "val"})
SPECS = {
    "FashionMNIST": IN_MEMORY,
    "KMNIST": IN_MEMORY,
    "QMNIST": IN_MEMORY._replace(classes=DIGITS, fixed=("what", "compat")),
    "EMNIST": IN_MEMORY,
    "USPS": IN_MEMORY._replace(classes=DIGITS),
    "CIFAR10": IN_MEMORY,
    "CIFAR100": IN_MEMORY,
    "SVHN": SPLIT._replace(in_memory=True, classes=DIGITS),
    "STL10": SPLIT._replace(in_memory=True),
    "GTSRB": SPLIT._replace(classes=tuple(map(str, range(43)))),
    "Flowers102": SPLIT,
    "Food101": SPLIT,
    "DTD": SPLIT,
    "Country211": SPLIT,
    "RenderedSST2": SPLIT,
    "PCAM": SPLIT._replace(classes=("no tumour", "tumour")),
    "StanfordCars": SPLIT._replace(downloads=False),
    "FER2013": SPLIT._replace(
        downloads=False, classes=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    ),
    "OxfordIIITPet": TRAINVAL._replace(fixed=("target_types",)),
    "FGVCAircraft": TRAINVAL,
    "Imagenette": TRAIN_VAL,
    "ImageNet": TRAIN_VAL._replace(downloads=False),
    "Places365": Spec({"split": "train-standard"}, {"split": "val"}),
}
# what torchvision's classes take beside these is for pixels and labels that are made here
SET_HERE = ("root", "download", "transform", "target_transform", "transforms", "loader")


class TorchvisionSource(DatasetSource):
    """A data set of torchvision's.

    Args:
        root: torchvision's folder of data sets.
        name: of the class, a key of `SPECS`.
        arguments: further arguments for the class, such as EMNIST's `split`.
        form: the form that images are converted to.

    Raises:
        RequestError: the class doesn't take an argument, or needs it.
    """

    in_threads = True

    def __init__(self, root: Path, name: str, arguments: Mapping[str, Any], form: ImageForm) -> None:
        super().__init__(name, form)
        self.root, self.arguments, self.spec = root, dict(arguments), SPECS[name]
        self.cls = getattr(datasets, name)
        fixed = {*SET_HERE, *self.spec.train, *self.spec.fixed}
        check_arguments(name, arguments, parameters(self.cls)[0] - fixed, fixed)
        if name == "EMNIST" and arguments.get("split") not in datasets.EMNIST.splits:
            raise RequestError(
                f"EMNIST has the splits {', '.join(datasets.EMNIST.splits)}. Choose one, such as "
                """--data.dataset_args '{"split": "letters"}'."""
            )

    def prepare(self) -> None:
        if self._complete():
            return
        if not self.spec.downloads:
            self._open_both()
        with locked(self.root, self.name):
            if not self._complete():  # another process may have downloaded it meanwhile
                self._download()
                self._open_both()

    def open(self, *, train: bool) -> Any:
        try:
            return self._make(self.root, train=train)
        except Exception as error:
            raise self._unreadable(error) from error

    def arrays(self, dataset: Any) -> ImageSet | None:
        if not self.spec.in_memory:
            return None
        images = torch.as_tensor(dataset.data)
        labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels).long()
        if self.name.startswith("CIFAR"):
            images = images.permute(0, 3, 1, 2)
        elif images.ndim == 3:
            images = images.unsqueeze(1)
        if self.name == "EMNIST":  # its files have columns before rows, and letters count from 1
            images, labels = images.transpose(2, 3), labels - self._first_label
        return ImageSet(images, labels[:, 0] if self.name == "QMNIST" else labels)

    def classes(self, dataset: Any) -> tuple[str, ...] | None:
        names = self.spec.classes or super().classes(dataset)
        return names[self._first_label :] if names else None

    @property
    def _first_label(self) -> int:
        return 1 if self.name == "EMNIST" and self.arguments["split"] == "letters" else 0

    def _complete(self) -> bool:
        """Whether both sets can be read. A package that is missing is an error."""
        try:
            self._open_both()
        except RequestError as error:
            if _missing_package(error):
                raise
            return False
        return True

    def _open_both(self) -> None:
        for train in (True, False):
            self.dataset(train=train)

    def _make(self, root: Path, *, train: bool, **download: bool) -> Any:
        return self.cls(str(root), **(self.spec.train if train else self.spec.test), **self.arguments, **download)

    def _download(self) -> None:
        def make(root: Path) -> None:
            errors = []
            for train in (True, False):
                try:
                    self._make(root, train=train, download=True)
                except RequestError:
                    raise
                except Exception as error:
                    errors.append(error)
            if errors:
                raise errors[0]

        try:
            download(self.name, self.cls.__module__, self.root, make)
        except RequestError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> RequestError:
        package = _missing_package(error)
        if package:
            return RequestError(f"{self.name} needs the package {package}. Install it: pip install {package}.")
        given = f" with data.dataset_args {self.arguments}" if self.arguments else ""
        reason = str(error).strip().removesuffix(".") or type(error).__name__
        return RequestError(
            f"{self.name} can't be read from {self.root}{given}: {reason}. Put its complete files there, or name "
            "another folder with --data.data_dir."
        )


def _missing_package(error: BaseException | None) -> str | None:
    """Return the package whose import failed, if this caused the error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.split(".")[0]
        error = error.__cause__ or error.__context__
    return None
