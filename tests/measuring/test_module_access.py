"""A module of another project: what measuring asks of this project's module has a plain answer."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from mnist_amp.measuring.module_access import capture_outcome, captures_steps, dataset_bytes, epoch_losses


def trainer(**attributes: Any) -> Trainer:
    return cast(Trainer, SimpleNamespace(**attributes))


def test_a_module_without_execution_captures_no_steps() -> None:
    module = LightningModule()
    assert captures_steps(module) is False
    assert capture_outcome(module) is None


def test_a_module_without_means_keeps_no_losses() -> None:
    assert epoch_losses(LightningModule()) is None


def test_only_images_in_memory_count_as_the_data_set() -> None:
    images, strategy = torch.zeros(2, 28, 28, dtype=torch.uint8), SimpleNamespace(root_device=torch.device("cpu"))
    assert dataset_bytes(trainer(datamodule=SimpleNamespace(images=images), strategy=strategy)) == 2 * 28 * 28
    assert dataset_bytes(trainer(datamodule=None)) == 0
    assert dataset_bytes(trainer(datamodule=SimpleNamespace(images=[images]))) == 0  # of another project
    strategy.root_device = torch.device("cuda")
    assert dataset_bytes(trainer(datamodule=SimpleNamespace(images=images), strategy=strategy)) == 0
