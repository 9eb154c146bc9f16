"""Clipping, accumulation and the means of an epoch in each precision, by runs of a few steps in this process."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_contents, checkpoint_files
from tests.conftest import Run

SMOKE = ("--config", "configs/smoke.yaml")


def last(version: int = 0) -> dict[str, Any]:
    return checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt"))


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
def test_training_metrics_are_summed_in_full_precision(run: Run, precision: str) -> None:
    run("fit", *SMOKE, "--trainer.limit_train_batches=400", "--trainer.precision", precision)
    (row,) = checkpoint_contents.history(last())
    assert row.train_accuracy is not None
    with Path("lightning_logs/version_0/metrics.csv").open(newline="") as file:
        losses = [float(step["train_loss_step"]) for step in csv.DictReader(file) if step["train_loss_step"]]
    # each addition of the 400 is rounded to float32
    assert row.train_loss == pytest.approx(sum(losses) / 400, rel=400 * 2**-24)
    # a sum in bfloat16 of 50 and more at a time would stop at 2**14 of the 400 * 64 images
    assert row.train_accuracy * 400 * 64 > 1.2 * 2**14
    correct = row.train_accuracy * 400 * 64
    assert correct == pytest.approx(round(correct), abs=2e-3)


@pytest.mark.parametrize("precision", [("--trainer.precision=32-true",), ("-c", "bf16.yaml"), ("-c", "fp16-cpu.yaml")])
def test_gradients_are_clipped(run: Run, precision: tuple[str, ...]) -> None:
    one_step = ("--trainer.max_steps=1", "--optimizer=SGD", "--optimizer.lr=1")
    run("fit", *precision, *SMOKE, *one_step, "--trainer.gradient_clip_val=0.01")
    seed_everything(42)
    before = LitClassifier().state_dict()
    moved = [(value - before[name]).flatten() for name, value in last()["state_dict"].items()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        (("--trainer.precision=32-true",), torch.float32),
        (("-c", "bf16.yaml"), torch.bfloat16),
        (("-c", "fp16-cpu.yaml"), torch.float16),
    ],
)
def test_gradients_are_accumulated(run: Run, precision: tuple[str, ...], dtype: torch.dtype) -> None:
    """Two accumulated batches of 32 are one step on their 64 images, to rounding of each gradient's norm."""
    run("fit", *precision, *SMOKE, "--trainer.max_steps=1")
    halves = ("--data.batch_size=32", "--trainer.accumulate_grad_batches=2")
    run("fit", *precision, *SMOKE, "--trainer.max_steps=1", *halves)
    one_batch, two_batches = last(0), last(1)
    assert one_batch["global_step"] == two_batches["global_step"] == 1
    assert "exp_avg" in one_batch["optimizer_states"][0]["state"][0]
    for number, state in one_batch["optimizer_states"][0]["state"].items():
        found = two_batches["optimizer_states"][0]["state"][number]["exp_avg"]
        # gradients in half precision are rounded once more; in float32, sums are taken in another order
        allowed = {torch.float32: 32, torch.bfloat16: 4, torch.float16: 4}[dtype] * torch.finfo(dtype).eps
        assert (found - state["exp_avg"]).norm() <= allowed * state["exp_avg"].norm()
