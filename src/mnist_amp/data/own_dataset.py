"""A data set class of the user's, by its import path."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_amp.data.dataset_source import DatasetSource
from mnist_amp.data.downloads import locked
from mnist_amp.data.image_form import ImageForm
from mnist_amp.data.items import described
from mnist_amp.data.parameters import check_arguments, parameters
from mnist_amp.errors import RequestError
from mnist_amp.named_classes import load_module
from mnist_amp.wording import nearest

SET_HERE = ("root", "train", "download")


class OwnSource(DatasetSource):
    """A data set that a class of the user's reads; the class is made as torchvision's are.

    Args:
        root: folder for the files, which the class is given as `root`.
        path: of the class, such as `my_package.MyDataset`.
        arguments: further arguments for the class.
        form: the form that images are converted to.

    Raises:
        RequestError: there is no such class, or it can't be a dataset with a training and a test set.
    """

    def __init__(self, root: Path, path: str, arguments: Mapping[str, Any], form: ImageForm) -> None:
        super().__init__(path, form)
        self.root, self.arguments, self.cls = root, dict(arguments), find_class(path)
        self.prepared = False
        names, takes_any = parameters(self.cls)
        self.takes = set(SET_HERE) if takes_any else names & set(SET_HERE)
        if "train" not in self.takes:
            raise RequestError(
                f"{path} has no argument train, which decides whether to read the training or the test set. Its "
                f"constructor must be like torchvision's: {self.cls.__name__}(root, train=True, download=False)."
            )
        accepted = {*names, *arguments} if takes_any else names
        check_arguments(path, arguments, accepted - set(SET_HERE), SET_HERE)

    def prepare(self) -> None:
        if self.prepared:
            return
        self.prepared = True
        if "download" not in self.takes:
            self.dataset(train=True)
            self.dataset(train=False)
            return
        with locked(self.root, self.name):
            for train in (True, False):
                self.opened[train] = self._make(train=train, download=True)

    def open(self, *, train: bool) -> Any:
        return self._make(train=train, download=False)

    def _make(self, **arguments: Any) -> Any:
        arguments = {key: value for key, value in {"root": str(self.root), **arguments}.items() if key in self.takes}
        try:
            dataset = self.cls(**arguments, **self.arguments)
            size = len(dataset)
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in {**arguments, **self.arguments}.items())
            raise RequestError(f"{self.name}({given}) failed: {described(error)}.") from error
        if size == 0:
            which = "training" if arguments["train"] else "test"
            raise RequestError(f"The {which} set of {self.name} is empty. Look for its files in {self.root}.")
        return dataset


def find_class(path: str) -> type:
    """Import a dataset class, installed or in the current folder.

    Raises:
        RequestError: there is no such class, or it lacks `__len__` or `__getitem__`.
    """
    module_name, _, name = path.rpartition(".")
    module = load_module(module_name)
    cls = getattr(module, name, None)
    if cls is None:
        known = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise RequestError(f"data.dataset is {path}, but {module_name} has no {name}{nearest(name, known)}.")
    if not inspect.isclass(cls) or not (hasattr(cls, "__len__") and hasattr(cls, "__getitem__")):
        raise RequestError(
            f"data.dataset is {path}, which is not a dataset class: it needs __len__ and __getitem__, as a "
            "torch.utils.data.Dataset has them."
        )
    return cls
