"""A module and a loader of another project: what measuring asks of them has a plain answer, or is not needed."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from mnist_amp.measuring.module_access import (
    batches_from_start,
    capture_outcome,
    captures_steps,
    dataset_bytes,
    network_of,
)
from mnist_amp.module import LitClassifier


def trainer(**attributes: Any) -> Trainer:
    return cast(Trainer, SimpleNamespace(**attributes))


class Loader:
    def __init__(self) -> None:
        self.position: Callable[[], tuple[int, int]] = lambda: (3, 2)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        yield self.position()


def test_a_module_without_execution_captures_no_steps() -> None:
    module = LightningModule()
    assert captures_steps(module) is False
    assert capture_outcome(module) is None


def test_the_network_is_the_modules_model_or_the_module_itself() -> None:
    ours, other = LitClassifier(), LightningModule()
    assert network_of(ours) is ours.model
    assert network_of(other) is other
    other.model = nn.Linear(1, 1)
    assert network_of(other) is other.model


def test_batches_begin_at_the_start_of_the_first_epoch() -> None:
    assert list(batches_from_start(trainer(train_dataloader=Loader()))) == [(0, 0)]
    assert list(batches_from_start(trainer(train_dataloader=["a", "b"]))) == ["a", "b"]


def test_only_images_in_memory_count_as_the_data_set() -> None:
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    assert dataset_bytes(trainer(datamodule=SimpleNamespace(images=images))) == 2 * 28 * 28
    assert dataset_bytes(trainer(datamodule=None)) == 0
