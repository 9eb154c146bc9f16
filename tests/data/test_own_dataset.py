# ruff: noqa: E501 - messages stand in a line as they are printed
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from mnist_amp.data import ClassificationDataModule, memory
from mnist_amp.data.items import image_pixels, label_number
from mnist_amp.data.own_dataset import OwnSource
from mnist_amp.data.sources import Facts, Source, make_source
from mnist_amp.errors import RequestError

OWN = '''
from pathlib import Path
import torch
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10

class Dots(Dataset):
    classes = ["dark", "light"]
    def __init__(self, root, train=True, download=False, level=10):
        self.root, self.level, self.size = Path(root), level, 4 if train else 2
        if download:
            (self.root / "dots.txt").write_text("dots")
        assert (self.root / "dots.txt").exists()
    def __len__(self): return self.size
    def __getitem__(self, index): return torch.full((1, 2, 3), self.level + index, dtype=torch.uint8), index % 2

class Plain:
    """No Dataset, no download, no root, no classes."""
    def __init__(self, train): self.train = train
    def __len__(self): return 3
    def __getitem__(self, index):
        if index >= 3: raise IndexError
        return torch.full((3, 2, 2), index / 2), 2 - index

class Passed(Dots):
    def __init__(self, root, **kwargs): super().__init__(root, **kwargs)

class Bad(Plain):
    classes = ["a", "b"]
    item = None
    def __init__(self, train, case=0): self.case = case
    def __getitem__(self, index):
        grey, colour = torch.zeros(1, 2, 2), torch.zeros(3, 2, 2)
        return [(grey, 5), (grey, 0.5), ("x", 0), (grey - 1, 0), None, (colour if index else grey, 0),
                (torch.zeros(1, 2 + index, 2), 0), (grey.int(), 0), (torch.zeros(2, 2, 2), 0)][self.case]

class Reversed(Bad):
    def __getitem__(self, index): return torch.full((1 if index else 3, 2, 2), 1.0), 0

class Empty(Plain):
    def __len__(self): return 0

class NoTrain(Plain):
    def __init__(self, root): pass

class Stream(torch.utils.data.IterableDataset): pass

def function(train): return Plain(train)
'''


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which has a module of dataset classes."""
    (tmp_path / "my_sets.py").write_text(OWN)
    (tmp_path / "my_broken.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as the command does with the current folder
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for name in ("my_sets", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def source(name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Source:
    return make_source(Path("data"), name, arguments, **options)


def refusal(name: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(RequestError) as error:
        source(name, arguments).load(train=True)
    return str(error.value)


@pytest.mark.parametrize("name", ["Dots", "Passed"])
def test_a_dataset_with_torchvisions_constructor(own: Path, name: str) -> None:
    data = source(f"my_sets.{name}", {"level": 20})
    data.prepare()
    assert {path.name for path in (own / "data").iterdir()} == {"dots.txt"}
    assert data.facts() == Facts(("dark", "light"), (1, 2, 3), 4, 2)
    images, labels = data.load(train=True)
    assert (images.dtype, images[:, 0, 1, 2].tolist()) == (torch.uint8, [20, 21, 22, 23])
    assert labels.tolist() == [0, 1, 0, 1]
    assert source(f"my_sets.{name}").load(train=False).images.shape == (2, 1, 2, 3)


def test_facts_download_what_is_missing(own: Path) -> None:
    """The data module asks for the facts before the Trainer prepares the data."""
    assert source("my_sets.Dots").facts() == Facts(("dark", "light"), (1, 2, 3), 4, 2)


def test_a_class_that_is_no_dataset_and_has_no_names() -> None:
    data = source("my_sets.Plain")
    data.prepare()
    assert not Path("data").exists()
    assert data.facts() == Facts(("0", "1", "2"), (3, 2, 2), 3, 3)
    images, labels = data.load(train=True)
    assert images[:, 0, 0, 0].tolist() == [0, 128, 255]
    assert labels.tolist() == [2, 1, 0]


def test_size_and_channels() -> None:
    data = source("my_sets.Plain", image_size=(4, 5), channels=1)
    assert data.facts().image_shape == (1, 4, 5)
    assert data.load(train=False).images[:, 0, 3, 4].tolist() == [0, 128, 255]


def test_grey_images_after_a_colour_image_become_rgb() -> None:
    images, _ = source("my_sets.Reversed").load(train=True)
    assert images.tolist() == [[[[255] * 2] * 2] * 3] * 3


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (0, "The training set of my_sets.Bad has the label 5 at index 0, but its 2 classes have the labels 0 to 1. Correct the label or the names of the classes."),
        (1, "Item 0 of the training set of my_sets.Bad can't be used: its label is 0.5; give an int from 0."),
        (2, "Item 0 of the training set of my_sets.Bad can't be used: its image is a str; give a Pillow image, a tensor or an array."),
        (3, "Item 0 of the training set of my_sets.Bad can't be used: its image has floats from -1 to -1; give floats from 0 to 1, without Normalize."),
        (4, "Item 0 of the training set of my_sets.Bad can't be read as an image and its label: TypeError: cannot unpack non-iterable NoneType object."),
        (5, "The training set of my_sets.Bad has grey images (image 0 of the training set) and colour images (image 1). Convert all images with --data.channels 1 or --data.channels 3."),
        (6, "The training set of my_sets.Bad has images of different sizes (height x width): 2 x 2 (image 0 of the training set) and 3 x 2 (image 1). Resize all images with --data.image_size, such as --data.image_size 64 or --data.image_size [48,64]."),
        (7, "Item 0 of the training set of my_sets.Bad can't be used: its image has values of int32; give uint8 or float32."),
        (8, "Item 0 of the training set of my_sets.Bad can't be used: its image has the shape (2, 2, 2); give (H, W), or 1 or 3 channels."),
    ],
)  # fmt: skip
def test_items_that_are_refused(case: int, message: str) -> None:
    assert refusal("my_sets.Bad", {"case": case}) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_sets.Dot", "data.dataset is my_sets.Dot, but my_sets has no Dot (did you mean Dots?)."),
        ("no_sets.Dots", "there is no module no_sets. Install the package that it is in, or run the command in its folder."),
        ("my_sets.sub.Dots", "there is no module my_sets.sub. Install the package that it is in, or run the command in its folder."),
        ("my_sets.function", "data.dataset is my_sets.function, which is not a dataset class: it needs __len__ and __getitem__, as a torch.utils.data.Dataset has them."),
        ("my_sets.Stream", "data.dataset is my_sets.Stream, which is not a dataset class: it needs __len__ and __getitem__, as a torch.utils.data.Dataset has them."),
        ("my_sets.NoTrain", "my_sets.NoTrain has no argument train, which decides whether to read the training or the test set. Its constructor must be like torchvision's: NoTrain(root, train=True, download=False)."),
        ("my_sets.Empty", "The training set of my_sets.Empty is empty. Look for its files in data."),
        ("my_broken.Dots", "the module my_broken can't be imported: ModuleNotFoundError: No module named 'no_such_package'."),
    ],
)  # fmt: skip
def test_classes_that_are_refused(name: str, message: str) -> None:
    assert refusal(name) == message


def test_an_argument_that_the_class_does_not_take() -> None:
    assert refusal("my_sets.Dots", {"levl": 1}) == (
        "data.dataset_args has levl, but my_sets.Dots has no such argument (did you mean level?); it takes level."
    )
    assert refusal("my_sets.Dots", {"train": True}) == (
        "data.dataset_args sets train, which the command sets itself for my_sets.Dots. Leave it out."
    )


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (3, 2), (1, 2, 3)),
        np.tile(np.array([1, 2, 3], np.uint8), (2, 3, 1)),
        torch.tensor([1, 2, 3], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 2, 3),
        torch.tensor([1, 2, 3]).reshape(3, 1, 1).expand(3, 2, 3) / 255,
    ],
    ids=["Pillow", "array", "uint8", "float"],
)
def test_kinds_of_images(image: object) -> None:
    assert image_pixels(image).tolist() == [[[value] * 3] * 2 for value in (1, 2, 3)]


@pytest.mark.parametrize("label", [3, np.int64(3), torch.tensor(3), torch.tensor([3]), np.array(3)])
def test_kinds_of_labels(label: object) -> None:
    assert label_number(label) == 3


def test_images_that_facts_have_read_need_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    named, unnamed = (ClassificationDataModule("data", f"my_sets.{name}", batch_size=1) for name in ("Bad", "Plain"))
    monkeypatch.setattr(memory, "free_host_memory", lambda: 0)
    for data in (named, unnamed):
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    unnamed.setup("fit")
    assert unnamed.labels.tolist() == [2, 1, 0]
    with pytest.raises(RequestError) as error:
        named.setup("fit")
    assert str(error.value).startswith("the 3 images of 1 x 2 x 2 take 0.0 GB of memory, but this machine has 0.0 GB ")


def test_images_without_names_of_classes_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 0)
    assert refusal("my_sets.Plain").startswith("the 3 images of 3 x 2 x 2 take 0.0 GB of memory, but this machine has ")


def test_only_the_set_that_is_read_is_kept_open(monkeypatch: pytest.MonkeyPatch) -> None:
    data = source("my_sets.Dots")
    assert isinstance(data, OwnSource)
    data.facts()
    cls: Any = data.cls
    opened, read = [set(data.opened)], cls.__getitem__

    def noted(dataset: Any, index: int) -> Any:
        opened.append(set(data.opened))
        return read(dataset, index)

    monkeypatch.setattr(cls, "__getitem__", noted)
    assert data.load(train=False).labels.tolist() == [0, 1]
    assert opened == [{True, False}, {False}, {False}]
