"""The gradient scaler: its settings, its count of skipped steps, and resume; in real fp16 on a CPU."""

import doctest

import pytest
import torch

from mnist_amp.runs import checkpoint_files
from mnist_amp.training import gradient_scaler
from mnist_amp.training.gradient_scaler import CountingGradScaler
from tests.conftest import Run
from tests.training.test_loss_scale_monitor import FP16, LAST, errors, huge, logged


def test_settings_take_effect(run: Run) -> None:
    run("fit", *FP16, "--scaler.init_scale=256", "--scaler.growth_interval=4", "--scaler.growth_factor=4", *huge(9))
    assert [scale for (scale,) in logged("loss_scale")] == [256] * 3 + [1024] * 4 + [4096] + [2048] * 4
    state = checkpoint_files.read(LAST)["MixedPrecision"]
    assert (state["growth_interval"], state["growth_factor"], state["backoff_factor"]) == (4, 4, 0.5)


def test_overridden_settings_take_effect_on_resume(run: Run) -> None:
    run("fit", *FP16, "--scaler.growth_interval=4", *huge(2))
    more = ("--ckpt_path=last", "--trainer.max_epochs=2", "--trainer.callbacks=null")
    printed = run("fit", *more, "--scaler.init_scale=64", "--scaler.growth_interval=6")
    assert "scaler.init_scale None -> 64.0, scaler.growth_interval 4 -> 6" in printed
    rows = logged("loss_scale", "skipped_steps", version=1)[12:]
    assert rows == [(64, 1)] * 5 + [(128, 1)] * 6 + [(256, 1)]


def test_a_lower_growth_interval_takes_effect_on_resume(run: Run) -> None:
    run("fit", *FP16, "--scaler.init_scale=256")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--scaler.growth_interval=4")
    assert [scale for (scale,) in logged("loss_scale", version=1)[12:]] == [256] * 3 + [512] * 4 + [1024] * 4 + [2048]


@pytest.mark.usefixtures("run")
def test_settings_without_a_scaler_give_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = errors(capsys, "fit", "--config=configs/smoke.yaml", "--scaler.init_scale=64")
    assert warnings == (
        "mnist-amp: warning: scaler.init_scale has no effect: gradients are not scaled in bf16-mixed.\n"
    )


def test_the_scaler_counts_skipped_steps() -> None:
    scaler, weight = CountingGradScaler("cpu", init_scale=4.0), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for factor in (1.0, float("inf"), 1.0, float("nan")):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    assert (scaler.skipped(), scaler.get_scale(), weight.tolist()) == (2, 1.0, [-1.0, -1.0])
    other = CountingGradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert (other.skipped(), other.state_dict()) == (2, scaler.state_dict())


def test_examples() -> None:
    assert doctest.testmod(gradient_scaler).failed == 0
