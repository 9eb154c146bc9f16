import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.data import mnist
from mnist_amp.data.sources import Facts, make_source
from mnist_amp.data.torchvision_sets import SPECS
from mnist_amp.errors import RequestError


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as error:
        make_source(Path("data"), *args, **options)
    return str(error.value)


def test_mnist(data_dir: Path) -> None:
    source = make_source(data_dir)
    source.prepare()
    assert source.facts() == Facts(tuple("0123456789"), (1, 28, 28), 60_000, 10_000)
    images, labels = source.load(train=False)
    expected, expected_labels = mnist.load(data_dir, train=False)
    assert torch.equal(images, expected.unsqueeze(1))
    assert torch.equal(labels, expected_labels)


def test_mnist_in_another_form(data_dir: Path) -> None:
    source = make_source(data_dir, image_size=32, channels=3)
    assert source.facts().image_shape == (3, 32, 32)
    assert source.load(train=False).images.shape == (10_000, 3, 32, 32)


def test_facts_of_mnist_need_no_files_and_no_class_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision_sets", "own_dataset", "folder_source"):
        monkeypatch.setitem(sys.modules, f"mnist_amp.data.{name}", None)
    assert make_source(Path("no")).facts().train_size == 60_000


def test_a_wrong_name() -> None:
    assert refusal("FashonMNIST") == (
        "data.dataset is FashonMNIST (did you mean FashionMNIST?). It must be one of torchvision's "
        f"{', '.join(['MNIST', *SPECS])}; or a class of your own, such as my_package.MyDataset. For a folder of "
        "images, give --data.folder instead."
    )
    assert refusal("cifar10").startswith("data.dataset is cifar10 (did you mean CIFAR10?). ")


def test_mnist_takes_no_arguments() -> None:
    assert refusal("MNIST", {"split": "letters"}) == "data.dataset_args has split, but MNIST takes none."


def test_two_data_sets(tmp_path: Path) -> None:
    assert refusal("CIFAR10", folder=tmp_path) == (
        "--data.folder and --data.dataset CIFAR10 are two data sets. Give one of them."
    )
    assert refusal(dataset_args={"a": 1}, folder=tmp_path) == (
        "--data.folder and --data.dataset_args are two data sets. Give one of them."
    )
