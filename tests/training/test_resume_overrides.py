"""Settings of the optimizer and its schedule that are overridden on resume take effect; see also test_schedules.py."""

from typing import Any

import pytest

from mnist_amp.module import LitClassifier
from mnist_amp.training.resume_overrides import override_optimizer_state
from tests.training.small_trainer import small_trainer


def checkpoint(fused: Any = None, lr: float = 0.001, **schedule: Any) -> dict[str, Any]:
    """Return parts of a checkpoint of Adam at a base rate of 0.001, which a schedule has changed to `lr`."""
    group = {"lr": lr, "initial_lr": 0.001, "eps": 1e-8, "fused": fused, "params": [0, 1, 2, 3]}
    return {
        "hyper_parameters": {"optimizer": adam(lr=0.001, eps=1e-8), "lr_scheduler": None},
        "optimizer_states": [{"param_groups": [group]}],
        "lr_schedulers": [schedule] if schedule else [],
    }


def adam(**init_args: Any) -> dict[str, Any]:
    return {"class_path": "torch.optim.Adam", "init_args": init_args}


@pytest.mark.parametrize("clip", [None, 1.0])
def test_fused_is_that_of_the_resumed_run(clip: float | None) -> None:
    module = LitClassifier(optimizer=adam(lr=0.001, eps=1e-8))
    module.trainer = small_trainer(gradient_clip_val=clip, precision="bf16-mixed")
    loaded = checkpoint(fused="the old value")
    module.on_load_checkpoint(loaded)
    assert loaded == checkpoint(fused=True)


def test_optimizer_settings_override_those_of_the_checkpoint() -> None:
    module = LitClassifier(optimizer=adam(lr=0.5, eps=1e-4))
    module.trainer = small_trainer()
    loaded = checkpoint()
    module.on_load_checkpoint(loaded)
    (group,) = loaded["optimizer_states"][0]["param_groups"]
    assert {name: group[name] for name in ("lr", "eps", "betas", "fused", "params")} == {
        "lr": 0.5,
        "eps": 1e-4,
        "betas": (0.9, 0.999),
        "fused": True,
        "params": [0, 1, 2, 3],
    }
    assert loaded["lr_schedulers"] == []


def test_equal_settings_change_nothing() -> None:
    loaded = checkpoint(fused=True, lr=0.0001, base_lrs=[0.001], _last_lr=[0.0001])
    override_optimizer_state(loaded, adam(lr=0.001, eps=1e-8, fused=True), None, "epoch")
    assert loaded == checkpoint(fused=True, lr=0.0001, base_lrs=[0.001], _last_lr=[0.0001])
