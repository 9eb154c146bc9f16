"""The reasons why steps can't be captured; captures themselves are in test_execution.py."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, LearningRateMonitor
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR, SequentialLR

from mnist_amp.training.cuda_graph import has_hook, obstacle
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor


def trainer(device: str = "cuda", world_size: int = 1, callbacks: Any = (), schedules: Any = ()) -> Any:
    """Return a stand-in for a Trainer, because a Trainer on a GPU needs a GPU."""
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)),
        world_size=world_size,
        callbacks=callbacks,
        lr_scheduler_configs=[SimpleNamespace(scheduler=schedule) for schedule in schedules],
        lightning_module=None,
    )


class WithinStep(Callback):
    """Reads the gradients in each step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        pass


def cycling(momentum: bool) -> SequentialLR:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    one_cycle = OneCycleLR(optimizer, max_lr=0.1, total_steps=5, cycle_momentum=momentum)
    return SequentialLR(optimizer, [ConstantLR(optimizer), one_cycle], [1])


@pytest.mark.parametrize(
    ("settings", "is_fused", "reason"),
    [
        ({}, True, None),
        ({"device": "cpu"}, True, "only a CUDA device has graphs"),
        ({"world_size": 2}, True, "only a single process can be captured"),
        ({}, False, "the optimizer is not fused, so the host waits for the device in each step"),
        (
            {"callbacks": [WithinStep()]},
            True,
            "WithinStep has a hook that runs in each step",
        ),
        ({"callbacks": [LossScaleMonitor(), LearningRateMonitor()]}, True, None),
        ({"callbacks": [BackboneFinetuning()]}, True, "BackboneFinetuning changes which weights are trained, or how"),
        ({"schedules": [cycling(momentum=True)]}, True, "the schedule changes more than the learning rate"),
        ({"schedules": [cycling(momentum=False)]}, True, None),
    ],
)
def test_obstacles(settings: dict[str, Any], is_fused: bool, reason: str | None) -> None:
    assert obstacle(trainer(**settings), is_fused) == reason


def test_a_hook_that_is_none_is_not_implemented() -> None:
    callback = WithinStep()
    assert has_hook(callback, "on_before_optimizer_step")
    callback.on_before_optimizer_step = None  # type: ignore[assignment,method-assign]
    assert not has_hook(callback, "on_before_optimizer_step")
    assert not has_hook(Callback(), "on_before_optimizer_step")
