"""Steps, timed with a clock that a test sets."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from mnist_amp.lightning_internals import FURTHER_BATCH_ACTION, NEXT_BATCH_ACTION
from mnist_amp.measuring.measured_fit import BARE, MeasuredFit
from mnist_amp.measuring.step_timer import StepTimer, StepTiming
from tests.measuring.fits import ENDLESS, tiny

WAIT, WORK = 0.25, 0.75  # seconds of a batch
EPOCH = 10  # batches


class Loop:
    """Lightning's training loop, as far as a timer sees it.

    Args:
        seconds: that the timer shall measure.
        accumulate: batches per optimizer step.
        further: batches that an iteration of the loop takes besides its first.
        automatic: whether Lightning calls the optimizer.
    """

    def __init__(self, seconds: float, accumulate: int = 1, further: int = 0, automatic: bool = True) -> None:
        self.now, self.iterations = 0.0, EPOCH
        self.timer = StepTimer(seconds, clock=lambda: self.now)
        self.accumulate, self.further, self.batches = accumulate, further, 0
        strategy = SimpleNamespace(root_device=torch.device("cpu"), lr_scheduler_configs=[])
        fit_loop = SimpleNamespace(max_epochs=5, epoch_loop=SimpleNamespace(max_steps=-1))
        self.trainer: Any = SimpleNamespace(
            strategy=strategy,
            fit_loop=fit_loop,
            lr_scheduler_configs=[],
            global_step=0,
            current_epoch=0,
            accumulate_grad_batches=accumulate,
            should_stop=False,
        )
        module = LightningModule()
        module.automatic_optimization = automatic
        self.trainer.lightning_module = module
        self.timer.on_train_start(cast(Trainer, self.trainer), module)

    def run(self, epochs: int) -> StepTiming | None:
        for _ in range(epochs):
            for _ in range(self.iterations):
                self._iterate()
            self.trainer.profiler.stop("run_training_epoch")
            self.now += 1000.0  # validation
        return self.timer.timing

    def _iterate(self) -> None:
        """Take batches, and then the steps on them; see `test_the_requests_of_an_execution`."""
        for place in range(self.further + 1):
            for action in (NEXT_BATCH_ACTION,) if place == 0 else (FURTHER_BATCH_ACTION, NEXT_BATCH_ACTION):
                self.trainer.profiler.start(action)
            self.now += WAIT
            for action in (NEXT_BATCH_ACTION,) if place == 0 else (NEXT_BATCH_ACTION, FURTHER_BATCH_ACTION):
                self.trainer.profiler.stop(action)
        for _ in range(self.further + 1):
            self.now += WORK
            self.batches += 1
            self.trainer.global_step += self.batches % self.accumulate == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, StepTiming(seconds=1.0, steps=8, waiting_seconds=0.25)),
        ({"accumulate": 2}, StepTiming(seconds=2.0, steps=4, waiting_seconds=0.5)),
        ({"further": 3}, StepTiming(seconds=1.0, steps=8, waiting_seconds=0.25)),
        ({"automatic": False}, StepTiming(seconds=1.0, steps=8, waiting_seconds=0.25)),
    ],
)
def test_a_step_has_its_waiting_and_no_time_between_epochs(options: dict[str, Any], expected: StepTiming) -> None:
    loop = Loop(7.5, **options)
    assert loop.run(epochs=6) == expected
    assert loop.trainer.should_stop is True


def test_epochs_of_one_iteration_are_added_up() -> None:
    loop = Loop(45.0, further=EPOCH - 1)
    loop.iterations = 1
    assert loop.run(epochs=9) == StepTiming(seconds=1.0, steps=50, waiting_seconds=0.25)


def test_a_request_within_an_execution_neither_starts_nor_stops_the_clock() -> None:
    """The time to measure is over while the batches of an execution are requested, before any of its steps."""
    loop = Loop(0.4, further=EPOCH - 1)
    loop.iterations = 1
    assert loop.run(epochs=4) == StepTiming(seconds=1.0, steps=10, waiting_seconds=0.25)


def test_the_requests_of_an_execution(data_dir: Path) -> None:
    """The request for a further batch contains Lightning's own, as in `Loop`."""
    actions: list[str] = []

    class Noting(Profiler):
        def start(self, action_name: str) -> None:
            actions.append(f"start {action_name}")

        def stop(self, action_name: str) -> None:
            actions.append(f"stop {action_name}")

    own = tiny(data_dir, **{"model.steps_per_execution": 2, "trainer.limit_train_batches": 2})
    MeasuredFit({}, own, [], **BARE, max_epochs=1, limit_val_batches=0, profiler=Noting())
    first, further = NEXT_BATCH_ACTION, FURTHER_BATCH_ACTION
    assert [action for action in actions if action.endswith((first, further))] == [
        *(f"start {first}", f"stop {first}"),
        *(f"start {further}", f"start {first}", f"stop {first}", f"stop {further}"),
    ]


def test_manual_optimization_counts_batches_rather_than_the_steps_of_several_optimizers() -> None:
    loop = Loop(7.5, automatic=False)
    loop.trainer.global_step = 100
    assert loop.run(epochs=3) == StepTiming(seconds=1.0, steps=8, waiting_seconds=0.25)


def test_nothing_is_timed_before_a_warm_up() -> None:
    loop = Loop(1e6)
    loop.run(epochs=2)
    assert (loop.timer.timing, loop.timer.spent) == (None, 0.0)  # these are the 20 steps of the warm-up
    loop.run(epochs=1)
    assert loop.timer.spent == 10.0


@pytest.mark.parametrize("steps_per_execution", [1, 10])
def test_a_fit_ends_after_it_is_timed(data_dir: Path, steps_per_execution: int) -> None:
    timer = StepTimer(seconds=0.01)
    fit = MeasuredFit({}, tiny(data_dir, **{"model.steps_per_execution": steps_per_execution}), [timer], **ENDLESS)
    assert timer.timing is not None
    assert timer.timing.steps % steps_per_execution == 0
    assert 0 < timer.timing.waiting_seconds < timer.timing.seconds
    assert fit.trainer.global_step - timer.timing.steps >= 3
