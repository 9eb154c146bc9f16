"""A callback that profiles the training steps of any module: their parts, work, memory, types and gradients."""

import math
import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from mnist_amp.errors import RunError
from mnist_amp.lightning_internals import end_fit
from mnist_amp.measuring import step_work
from mnist_amp.measuring.dtypes import LayerLog, OperationLog, kernels_of
from mnist_amp.measuring.gradients import gradients_of
from mnist_amp.measuring.measured_fit import ENDED, ENDLESS, MeasuredFit, make_endless
from mnist_amp.measuring.memory import MemoryMeter
from mnist_amp.measuring.operation_kinds import RECURRENT
from mnist_amp.measuring.profile_records import Profile, Spread, StepTimes
from mnist_amp.measuring.profile_report import PARTS
from mnist_amp.measuring.step_parts import ACTIONS, WAITING, HostClock, Recorder, StepProfiler, StreamClock, parts_of
from mnist_amp.training.precision import described_precision, product_dtype

# Steps with marks and steps without take turns, because the speed of a machine changes. The number is odd, so that work
# that comes every few steps, such as picking out the images, comes to both.
ROUND = 25
# at the end of an epoch only, and short
VALIDATION: dict[str, Any] = {"limit_val_batches": 1, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
WORK_STEPS = 7  # under torch's profiler


class Amounts(NamedTuple):
    """How much is measured.

    Attributes:
        steps: number of steps to time with marks, and again without.
        warmup: number of steps before those.
        gradient_steps: optimizer steps whose gradients are counted.
        seconds: end the warm-up and each round of timing after this time, but not before 3 steps.
    """

    steps: int
    warmup: int
    gradient_steps: int
    seconds: float = float("inf")


class StepProfile(Callback):
    """Profiles the first steps of a fit, and then stops the fit.

    Attributes:
        result: the profile; None until it is complete.
    """

    def __init__(self, amounts: Amounts) -> None:
        self.amounts = amounts
        self.result: Profile | None = None
        self.script = self._script()
        self.memory: MemoryMeter | None = None  # of the step that is running
        self.counter: FlopCounterMode | None = None
        self.flops = 0  # of the batches that it has counted

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.module = trainer, pl_module
        make_endless(trainer)
        self.on_cuda = trainer.strategy.root_device.type == "cuda"
        self.profiler = StepProfiler(StreamClock() if self.on_cuda else HostClock(), self.script, self._end)
        trainer.profiler = self.profiler  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.memory is not None:
            self.memory.begin_batch(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.counter is not None:  # here, because a validation may follow before the script resumes
            self.flops = int(self.counter.get_total_flops())

    def _script(self) -> Generator[None]:
        """Measure; each `yield` lets a batch run."""
        yield from self._some(self.amounts.warmup)
        plain, marked = Recorder(self.profiler.clock), Recorder(self.profiler.clock)
        yield from self._timed(plain, marked)
        times = step_times(plain.times(), marked.times())  # before more steps are recorded
        usual, steps = step_times(plain.usual_times(), marked.usual_times()), len(marked.times())
        batches, optimizers = self.trainer.accumulate_grad_batches, self.trainer.optimizers  # per optimizer step
        with gradients_of(optimizers) as gradients:
            yield from repeat(None, self.amounts.gradient_steps * batches)
        recorder = Recorder(self.profiler.clock)
        self.profiler.watch(recorder, ACTIONS)
        yield from self._to_room(batches)
        with parts_of(self.trainer, recorder), OperationLog(recorder) as operations:
            yield from repeat(None, batches)
        yield from self._to_room(batches)
        with LayerLog(self.module).recording() as layers, step_work.flops_counter() as self.counter:
            yield from repeat(None, batches)
        self.counter = None
        yield from self._to_room(batches)
        self.memory = MemoryMeter(self.trainer, self.module)
        with self.memory.measuring():
            yield from repeat(None, batches)
        memory, self.memory = self.memory.use(), None
        work = yield from self._work_profile(batches)
        log = operations.operations()
        self.result = Profile(
            precision=described_precision(self.trainer),
            optimizer=", ".join(type(optimizer).__name__ for optimizer in optimizers),
            fused=all(bool(optimizer.defaults.get("fused")) for optimizer in optimizers),
            steps=steps,
            warmup=self.amounts.warmup,
            times=times,
            work=self._work(work, usual, batches),
            # torch's counter leaves out recurrent layers, so the others alone would mislead
            flops=0 if any(RECURRENT.search(found.name) for found in log) else self.flops // batches,
            peak_flops=step_work.peak_flops(self.trainer.strategy.root_device, product_dtype(self.trainer)),
            memory=memory,
            non_finite=layers.non_finite,
            gradients=gradients.sizes(),
            layers=layers.layers,
            operations=log,
            kernels=kernels_of(work) if self.on_cuda else None,
        )

    def _timed(self, plain: Recorder, marked: Recorder) -> Iterator[None]:
        """Time steps without marks and steps with marks, in turn."""
        for done in range(0, self.amounts.steps, ROUND):
            count = min(ROUND, self.amounts.steps - done)
            self.profiler.watch(plain, {})
            yield from self._some(count)
            self.profiler.watch(marked, ACTIONS)
            with parts_of(self.trainer, marked):
                yield from self._some(count)

    def _work_profile(self, batches: int) -> Generator[None, None, torch.profiler.profile]:
        """Run steps under torch's profiler, and return it."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_cuda else [])]
        self.profiler.ranges = True
        work: torch.profiler.profile
        with step_work.marked_closures(self.trainer.optimizers):
            with torch.profiler.profile(activities=activities):
                yield from repeat(None, 2)  # torch's profiler is slow at first
            with torch.profiler.profile(activities=activities) as work:
                yield from repeat(None, WORK_STEPS * batches)
                if self.on_cuda:
                    torch.cuda.synchronize()
        return work

    def _to_room(self, batches: int) -> Iterator[None]:
        """Let batches run until the epoch has more left: a validation at its end would be measured with them."""
        most = self.trainer.num_training_batches
        while batches < most < math.inf and most - (self.trainer.fit_loop.batch_idx + 1) <= batches:
            yield

    def _some(self, count: int) -> Iterator[None]:
        started = time.perf_counter()
        for done in range(count):
            if done >= 3 and time.perf_counter() - started > self.amounts.seconds:
                return
            yield

    def _work(self, profiler: torch.profiler.profile, times: StepTimes, batches: int) -> dict[str, float]:
        seconds = step_work.seconds_by_kind(profiler.events(), self.on_cuda, batches)  # type: ignore[no-untyped-call]
        # an optimizer step has several batches, of which only one has the optimizer: the mean is that of all
        step = times.unmarked_step.median if batches == 1 else batches * times.unmarked_step.mean
        waiting = times.parts[WAITING].mean if WAITING in times.parts else 0.0  # it comes every few steps
        return step_work.shares(seconds, step, batches * waiting, self.on_cuda)

    def _end(self) -> None:
        # not `should_stop`, which makes Lightning validate first
        end_fit(self.trainer)


def measure_profile(config: dict[str, Any], overrides: dict[str, Any], amounts: Amounts) -> tuple[Profile, MeasuredFit]:
    """Profile the first steps of a fit.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        amounts: how much is measured.

    Returns:
        The profile, and the fit, which has ended.

    Raises:
        RunError: a callback of the settings ended the fit.
    """
    profile = StepProfile(amounts)
    with closing(profile.script):
        fit = MeasuredFit(config, overrides, [profile], **ENDLESS, **VALIDATION)
    if profile.result is None:
        raise RunError(f"{ENDED}.")
    return profile.result, fit


def step_times(plain: list[dict[str, int]], marked: list[dict[str, int]]) -> StepTimes:
    """Sum up the times of steps.

    Args:
        plain: of steps without marks: nanoseconds by part.
        marked: the same of steps with marks.

    Returns:
        The parts are in the order of `profile_report.PARTS`.
    """
    steps, bare = [sum(step.values()) for step in marked], [sum(step.values()) for step in plain]
    total = sum(steps)
    names = [name for name in PARTS if any(name in step for step in marked)]
    return StepTimes(
        step=_spread(steps, total),
        unmarked_step=_spread(bare, sum(bare)),
        marks_cost=statistics.median(steps) / statistics.median(bare),
        parts={name: _spread([step.get(name, 0) for step in marked], total) for name in names},
    )


def _spread(nanoseconds: list[int], total: int) -> Spread:
    low, high = np.percentile(nanoseconds, (10, 90)) / 1e9
    return Spread(
        mean=statistics.fmean(nanoseconds) / 1e9,
        median=statistics.median(nanoseconds) / 1e9,
        p10=float(low),
        p90=float(high),
        nanoseconds=sum(nanoseconds),
        share=sum(nanoseconds) / total,
    )
