"""Measured fits: time by a fake clock, memory by hand, processes of their own."""

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring import measure
from mnist_amp.measuring.compare import PRECISIONS
from mnist_amp.measuring.measure import LossCurve, MeasuredFit, StepTimer

TINY = {"model.hidden_dim": 16, "data.batch_size": 32, "trainer.accelerator": "cpu", "trainer.precision": "32-true"}
ENDLESS: dict[str, Any] = {"max_epochs": -1, "limit_val_batches": 0}


def tiny(data_dir: Path, **more: Any) -> dict[str, Any]:
    return {**TINY, "data.data_dir": str(data_dir), **more}


@pytest.mark.parametrize(("steps_per_execution", "steps"), [(1, 5), (10, 50)])
def test_a_step_is_timed_after_the_warm_up(data_dir: Path, steps_per_execution: int, steps: int) -> None:
    ticks = itertools.count()
    timer = StepTimer(seconds=5.0, clock=lambda: float(next(ticks)))
    fit = MeasuredFit({}, tiny(data_dir, **{"model.steps_per_execution": steps_per_execution}), [timer], **ENDLESS)
    # the clock ticks once a look: at the start, before each batch until it is warm, and after each one from then on
    assert timer.record["steps"] == steps
    assert fit.trainer.global_step == timer.first + steps
    assert timer.record["seconds"] * steps == pytest.approx(6.0)
    assert timer.record["data_seconds"] * steps == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("precision", "activations"),
    [
        # float32: hidden activations (32, 16), log-probabilities (32, 10), the loss's total weight ()
        ("32-true", 4 * (32 * 16 + 32 * 10 + 1)),
        # the images (32, 784), the hidden activations and fc2's weights (10, 16) in half precision; the loss in float32
        ("bf16-mixed", 2 * (32 * 784 + 32 * 16 + 10 * 16) + 4 * (32 * 10 + 1)),
    ],
)
def test_memory_is_what_the_layers_make_it(data_dir: Path, precision: str, activations: int) -> None:
    timer, weights = StepTimer(seconds=0.0), 784 * 16 + 16 + 16 * 10 + 10
    MeasuredFit({}, tiny(data_dir, **{"trainer.precision": precision}), [timer], **ENDLESS)
    assert timer.record["memory"] == {
        "weights": 4 * weights,
        "gradients": 4 * weights,
        "optimizer": 4 * (2 * weights + 4),  # Adam's two means, and a step count for each of four parameters
        "batch": 4 * 32 * 784,
        "activations": activations,
        "peak": None,
        "data": None,
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16-mixed", "16-mixed"])
def test_on_a_cuda_device(data_dir: Path, precision: str) -> None:
    own = tiny(data_dir, **{"trainer.accelerator": "cuda", "model.steps_per_execution": 50, **PRECISIONS[precision]})
    record = measure.speed({}, own, 0.05)
    assert record["effective"] == {"tf32": "32-true with TF32"}.get(precision, precision)
    assert record["memory"]["data"] == 60_000 * 784
    known = sum(record["memory"][part] for part in ("weights", "gradients", "optimizer", "batch", "data"))
    assert record["memory"]["peak"] > known
    assert 0 < record["data_seconds"] < record["seconds"]


def test_a_loss_curve_has_at_most_100_points() -> None:
    curve = LossCurve()
    curve.losses = [1.0, 3.0, 5.0]
    assert curve.points() == [(1.0, 1.0), (2.0, 3.0), (3.0, 5.0)]
    curve.losses = [float(step) for step in range(1, 252)]
    assert len(curve.points()) == 84
    assert curve.points()[0] == (2.0, 2.0)
    assert curve.points()[-1] == (250.5, 250.5)


def square(number: int) -> dict[str, Any]:
    return {"square": number**2, "process": os.getpid()}


def refuse() -> dict[str, Any]:
    raise RequestError("no")


def fail() -> dict[str, Any]:
    raise MemoryError("can't allocate memory")


def die() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_process_of_its_own() -> None:
    first, second = measure.isolated(square, 3), measure.isolated(square, 4)
    assert (first["square"], second["square"]) == (9, 16)
    assert len({os.getpid(), first["process"], second["process"]}) == 3


def test_what_goes_wrong_in_it() -> None:
    with pytest.raises(RequestError, match=r"^no$"):
        measure.isolated(refuse)
    with pytest.raises(
        RunError, match=r"^this machine has too little memory\. Lower model.hidden_dim or data.batch_size\. "
    ):
        measure.isolated(fail)
    with pytest.raises(RunError, match=r"^the process died with exit status -9, for want of memory perhaps$"):
        measure.isolated(die)
