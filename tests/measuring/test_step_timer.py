"""Optimizer steps, timed with a clock that ticks at each reading."""

import itertools
from pathlib import Path

import pytest

from mnist_amp.measuring.measured_fit import MeasuredFit
from mnist_amp.measuring.step_timer import StepTimer
from tests.measuring.fits import ENDLESS, tiny


@pytest.mark.parametrize(("steps_per_execution", "steps"), [(1, 5), (10, 50)])
def test_steps_are_timed_after_a_warm_up(data_dir: Path, steps_per_execution: int, steps: int) -> None:
    ticks = itertools.count()
    timer = StepTimer(seconds=5.0, clock=lambda: float(next(ticks)))
    fit = MeasuredFit({}, tiny(data_dir, **{"model.steps_per_execution": steps_per_execution}), [timer], **ENDLESS)
    # readings of the clock: at the start, before each batch of the warm-up, and after each batch from then on
    assert timer.timing is not None
    assert timer.timing.steps == steps
    assert fit.trainer.global_step == timer.first + steps
    assert timer.timing.seconds * steps == pytest.approx(6.0)
    assert timer.timing.data_seconds * steps == pytest.approx(1.0)
