"""The optimizer and its schedule, created from plain values, and the choice of a fused optimizer."""

from typing import Any

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau

from mnist_amp.errors import RequestError
from mnist_amp.module import LitSimpleNN
from tests.training.small_trainer import small_trainer


def configured(module: LitSimpleNN) -> Any:
    return module.configure_optimizers()


def test_default_optimizer_is_the_guides() -> None:
    module = LitSimpleNN()
    module.trainer = small_trainer()
    optimizer = configured(module)["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 0.001


@pytest.mark.parametrize(
    ("clip", "given", "fused"),
    [
        (None, {}, True),
        (0.0, {}, True),
        (1.0, {}, None),
        (None, {"fused": False}, False),
        (1.0, {"fused": False}, False),
        (None, {"foreach": True}, None),
    ],
)
def test_optimizer_is_fused_unless_gradients_are_clipped(clip: float | None, given: Any, fused: bool | None) -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, **given}})
    module.trainer = small_trainer(gradient_clip_val=clip, precision="bf16-mixed")
    assert configured(module)["optimizer"].defaults["fused"] is fused


def test_an_optimizer_without_a_fused_implementation_is_unchanged() -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.RMSprop"})
    module.trainer = small_trainer()
    assert type(configured(module)["optimizer"]) is torch.optim.RMSprop


def test_a_fused_optimizer_with_clipping_is_refused() -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.Adam", "init_args": {"fused": True}})
    module.trainer = small_trainer(gradient_clip_val=1.0, precision="bf16-mixed")
    with pytest.raises(RequestError) as error:
        configured(module)
    assert str(error.value) == (
        "optimizer.fused and trainer.gradient_clip_val can't be combined in mixed precision, because a fused "
        "optimizer unscales the gradients only after they are clipped. Leave one of them out."
    )


def test_a_fused_optimizer_can_be_clipped_in_full_precision() -> None:
    module = LitSimpleNN()
    module.trainer = small_trainer(gradient_clip_val=1.0)
    assert configured(module)["optimizer"].defaults["fused"] is True


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_schedule_has_the_interval(interval: Any) -> None:
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
    module = LitSimpleNN(lr_scheduler=schedule, lr_scheduler_interval=interval)
    module.trainer = small_trainer()
    made = configured(module)["lr_scheduler"]
    assert type(made["scheduler"]) is torch.optim.lr_scheduler.StepLR
    assert (made["interval"], made["monitor"]) == (interval, None)


def test_a_plateau_schedule_monitors_its_metric() -> None:
    schedule = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss"}}
    module = LitSimpleNN(lr_scheduler=schedule)
    module.trainer = small_trainer()
    made = configured(module)["lr_scheduler"]
    assert isinstance(made["scheduler"], ReduceLROnPlateau)
    assert made["monitor"] == "val_loss"
