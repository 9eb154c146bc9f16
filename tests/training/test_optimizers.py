"""The optimizer and its schedule, created from plain values, and the choice of a fused optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.nn.utils import parameters_to_vector

from mnist_amp.data import ClassificationDataModule
from mnist_amp.module import LitClassifier
from mnist_amp.training.optimizers import with_fused
from tests.training.small_trainer import small_trainer


def configured(module: LitClassifier) -> Any:
    return module.configure_optimizers()


def test_default_optimizer_is_the_guides() -> None:
    module = LitClassifier()
    module.trainer = small_trainer()
    optimizer = configured(module)["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 0.001


@pytest.mark.parametrize("clip", [None, 0.0, 1.0])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("given", "fused"), [({}, True), ({"fused": True}, True), ({"fused": False}, False), ({"foreach": True}, None)]
)
def test_an_optimizer_is_fused_unless_the_user_chooses_otherwise(
    clip: float | None, precision: Any, given: Any, fused: bool | None
) -> None:
    module = LitClassifier(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, **given}})
    module.trainer = small_trainer(gradient_clip_val=clip, precision=precision)
    assert configured(module)["optimizer"].defaults["fused"] is fused


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda", None)])
def test_adagrad_is_fused_on_a_cpu_only(device: str, fused: bool | None) -> None:
    settings = {"class_path": "torch.optim.Adagrad", "init_args": {"lr": 0.1}}
    assert with_fused(settings, device)["init_args"].get("fused") is fused


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["Adagrad", "Adam", "AdamW", "NAdam", "RMSprop", "SGD"])
def test_optimizers_step_on_a_cuda_device(data_dir: Path, name: str) -> None:
    module = LitClassifier(optimizer={"class_path": f"torch.optim.{name}", "init_args": {"lr": 0.001}})
    before = parameters_to_vector(module.parameters()).detach()
    trainer = small_trainer(accelerator="cuda", devices=1, precision="16-mixed", limit_train_batches=3)
    trainer.fit(module, ClassificationDataModule(str(data_dir)))
    assert not torch.equal(parameters_to_vector(module.parameters()), before)


def test_an_optimizer_without_a_fused_implementation_is_unchanged() -> None:
    module = LitClassifier(optimizer={"class_path": "torch.optim.RMSprop"})
    module.trainer = small_trainer()
    assert type(configured(module)["optimizer"]) is torch.optim.RMSprop


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_schedule_has_the_interval(interval: Any) -> None:
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
    module = LitClassifier(lr_scheduler=schedule, lr_scheduler_interval=interval)
    module.trainer = small_trainer()
    made = configured(module)["lr_scheduler"]
    assert type(made["scheduler"]) is torch.optim.lr_scheduler.StepLR
    assert (made["interval"], made["monitor"]) == (interval, None)


def test_a_plateau_schedule_monitors_its_metric() -> None:
    schedule = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss"}}
    module = LitClassifier(lr_scheduler=schedule)
    module.trainer = small_trainer()
    made = configured(module)["lr_scheduler"]
    assert isinstance(made["scheduler"], ReduceLROnPlateau)
    assert made["monitor"] == "val_loss"
