"""The time of the parts of a training step, from marks at their borders. A mark is a reading of a clock.

A step lasts from one request for data to the next, to a validation, or to the end of the epoch::

    clock = HostClock()
    recorder = Recorder(clock)
    profiler = StepProfiler(clock, script=itertools.repeat(None), finish=lambda: None)
    profiler.watch(recorder, ACTIONS)
    Trainer(max_epochs=1, profiler=profiler).fit(module, data)
    print(recorder.times()[0])  # {'waiting for data': 37400, 'the loop itself': 612000, 'transfer': 29800, ...}

`parts_of` adds the parts that are not actions of Lightning: forward, loss, backward, and those of the GradScaler.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import Profiler
from torch.profiler import record_function

from mnist_amp.lightning_internals import NEXT_BATCH_ACTION, VALIDATION_ACTIONS
from mnist_amp.training.gradient_scaler import scaler_of

LOOP = "the loop itself"
WAITING = "waiting for data"
REQUEST = NEXT_BATCH_ACTION
# part by Lightning's name of the action, after the last dot
ACTIONS = {
    "train_dataloader_next": WAITING,
    "batch_to_device": "transfer",
    "training_step": "training_step",
    "optimizer_zero_grad": "optimizer",
    "configure_gradient_clipping": "optimizer",
}
# ranges of torch's profiler, by Lightning's name of the action
REQUEST_RANGE, TRANSFER_RANGE = "mnist-amp: request for a batch", "mnist-amp: transfer of a batch"
VALIDATION_RANGE = "mnist-amp: validation"  # until the next request
RANGES = {"train_dataloader_next": REQUEST_RANGE, "batch_to_device": TRANSFER_RANGE}


class Clock(Protocol):
    """Takes marks at little cost, and measures the time between them afterwards."""

    def mark(self) -> Any: ...

    def nanoseconds(self, start: Any, end: Any) -> int: ...


class HostClock:
    """Marks the time of the host."""

    def mark(self) -> int:
        return time.perf_counter_ns()

    def nanoseconds(self, start: int, end: int) -> int:
        return end - start


class StreamClock:
    """Marks when a CUDA stream reaches a point, so that the host need not wait for the device.

    The time between two marks is that of the stream: its work, and its waits for the host.
    """

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def nanoseconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> int:
        end.synchronize()
        return round(float(start.elapsed_time(end)) * 1e6)  # of milliseconds


class Recorder:
    """Assigns the time between two marks to the innermost part, or to the loop, so the parts add up to the step.

        recorder = Recorder(HostClock())
        recorder.begin()
        with_loss = recorder.within("loss", F.cross_entropy)
        loss = with_loss(logits, labels)
        recorder.end()
        recorder.times()  # [{'the loop itself': 2100, 'loss': 48300}]

    Args:
        clock: takes the marks.

    Attributes:
        parts: the parts that have begun and not ended, the innermost last; empty between two steps.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.parts: list[str] = []
        self.firsts: list[bool] = []  # whether each step is the first of an epoch
        self._steps: list[list[tuple[str, Any]]] = []  # marks, each with the part that ends there

    def begin(self, is_first: bool = False) -> None:
        self.parts = [LOOP]
        self.firsts.append(is_first)
        self._steps.append([("", self.clock.mark())])

    def end(self) -> None:
        if self.parts:
            self._mark()
            self.parts = []

    def enter(self, part: str) -> None:
        if self.parts:
            self._mark()
            self.parts.append(part)

    def leave(self) -> None:
        if len(self.parts) > 1:
            self._mark()
            self.parts.pop()

    def within(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is that of a part, except that an optimizer's closure is the loop's."""

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if "closure" in kwargs:
                kwargs["closure"] = self.within(LOOP, kwargs["closure"])
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return recorded

    def times(self) -> list[dict[str, int]]:
        """Return the nanoseconds of each part, for every step; they add up to the step."""
        steps = []
        for marks in self._steps:
            step: dict[str, int] = {}
            for (_, start), (part, end) in pairwise(marks):
                step[part] = step.get(part, 0) + self.clock.nanoseconds(start, end)
            steps.append(step)
        return steps

    def usual_times(self) -> list[dict[str, int]]:
        """Return `times` without the first steps of epochs, which wait for a loader to start, if there are others."""
        usual = [step for step, is_first in zip(self.times(), self.firsts, strict=True) if not is_first]
        return usual or self.times()

    def _mark(self) -> None:
        self._steps[-1].append((self.parts[-1], self.clock.mark()))


class StepProfiler(Profiler):
    """A Lightning profiler that passes Lightning's actions to a recorder, and resumes a script before each step.

    The script is a generator. It may change what is recorded, and each of its `yield` lets one step run. See the module
    for an example without a script, and `mnist_amp.measuring.step_profile.StepProfile` for one with a script.

    Args:
        clock: that of the recorders.
        script: resumed before each step.
        finish: called when the script has ended; one more step may follow.
    """

    def __init__(self, clock: Clock, script: Iterator[None], finish: Callable[[], None]) -> None:
        super().__init__()
        self.clock, self.script, self.finish = clock, script, finish
        self.is_first = True  # whether the next step is the first of an epoch
        self.ranges = False  # whether to mark requests and transfers for torch's profiler
        self._range: record_function | None = None
        self._range_name = ""
        self.watch(Recorder(clock), {})

    def watch(self, recorder: Recorder, actions: Mapping[str, str]) -> None:
        """Record the next steps, with these actions of Lightning as parts, such as `ACTIONS`."""
        self.recorder, self.actions = recorder, actions

    def start(self, action_name: str) -> None:
        if action_name == REQUEST:
            self._end_range()  # of a validation
            self.recorder.end()
            if next(self.script, self) is self:
                self.finish()
            self.recorder.begin(self.is_first)
            self.is_first = False
        action = action_name.rpartition(".")[2]
        if action in VALIDATION_ACTIONS:
            self.recorder.end()
            self._begin_range(VALIDATION_RANGE)
        elif action in self.actions:
            self.recorder.enter(self.actions[action])
        if action in RANGES:
            self._begin_range(RANGES[action])

    def _begin_range(self, name: str) -> None:
        if self.ranges and self._range is None:
            self._range, self._range_name = record_function(name), name
            self._range.__enter__()  # type: ignore[no-untyped-call]

    def _end_range(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range, self._range_name = None, ""

    def stop(self, action_name: str) -> None:
        if RANGES.get(action_name.rpartition(".")[2]) == self._range_name:
            self._end_range()
        if action_name == "run_training_epoch":
            self.recorder.end()
            self.is_first = True
        elif action_name.rpartition(".")[2] in self.actions:
            self.recorder.leave()


@contextmanager
def parts_of(trainer: Trainer, recorder: Recorder) -> Iterator[None]:
    """Record the parts that are not actions of Lightning, in this context."""
    scaler = scaler_of(trainer)
    owners: list[tuple[Any, str, str]] = [
        (trainer.lightning_module, "forward", "forward"),
        (F, "cross_entropy", "loss"),
        (trainer.strategy, "backward", "backward"),  # in manual optimization, it is no action
        *((optimizer, "step", "optimizer") for optimizer in trainer.optimizers),
    ]
    if scaler is not None:
        # step: the check for inf with the unscaling, and within it the optimizer's step
        parts = {"scale": "loss", "unscale_": "unscale", "step": "unscale", "update": "scaler update"}
        owners += [(scaler, name, part) for name, part in parts.items()]
    with ExitStack() as stack:
        for owner, name, part in owners:
            stack.enter_context(replaced(owner, name, recorder.within(part, getattr(owner, name))))
        yield


@contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of a module or a method of an object, in this context."""
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:  # the class has it
            delattr(owner, name)
