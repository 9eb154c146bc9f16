"""Where a training step's time goes: marks at the borders of its parts, each a reading of a clock.

A step lasts from one request for data to the next, or to what is no training: a validation, an epoch's end.
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

from mnist_amp.lightning_internals import NEXT_BATCH_ACTION
from mnist_amp.training.gradient_scaler import scaler_of

LOOP = "the loop itself"
REQUEST = NEXT_BATCH_ACTION
# what Lightning calls it, after the last dot, and which part it is
ACTIONS = {
    "train_dataloader_next": "waiting for data",
    "batch_to_device": "transfer",
    "backward": "backward",
    "optimizer_zero_grad": "optimizer",
    "configure_gradient_clipping": "optimizer",
}
NO_TRAINING = ("on_validation_model_zero_grad", "on_validation_model_eval")


class Clock(Protocol):
    """Takes marks that cost little, and tells afterwards how far they are apart."""

    def mark(self) -> Any: ...

    def nanoseconds(self, start: Any, end: Any) -> int: ...


class HostClock:
    def mark(self) -> int:
        return time.perf_counter_ns()

    def nanoseconds(self, start: int, end: int) -> int:
        return end - start


class StreamClock:
    """Marks when a CUDA stream comes by, so that the host need not wait: its time is work, and waiting for the host."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def nanoseconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> int:
        end.synchronize()
        return round(float(start.elapsed_time(end)) * 1e6)  # of milliseconds


class Recorder:
    """Charges the time between two marks to the innermost part under way, or to the loop. So nothing is left over.

    Attributes:
        parts: under way, the innermost last; none between two steps.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.parts: list[str] = []
        self._steps: list[list[tuple[str, Any]]] = []  # marks, each with the part that ends there

    def begin(self) -> None:
        self.parts = [LOOP]
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
        """Return the function, charged to a part; but what an optimizer calls as its closure is the loop's."""

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
        """Return the nanoseconds of each part for every step; they add up to the step."""
        steps = []
        for marks in self._steps:
            step: dict[str, int] = {}
            for (_, start), (part, end) in pairwise(marks):
                step[part] = step.get(part, 0) + self.clock.nanoseconds(start, end)
            steps.append(step)
        return steps

    def _mark(self) -> None:
        self._steps[-1].append((self.parts[-1], self.clock.mark()))


class StepProfiler(Profiler):
    """Tells a recorder what Lightning does, and resumes a script before each step.

    Args:
        clock: of the recorders.
        script: each of its `yield` lets one step pass.
        finish: called when the script has ended; one more step may follow.
    """

    def __init__(self, clock: Clock, script: Iterator[None], finish: Callable[[], None]) -> None:
        super().__init__()
        self.clock, self.script, self.finish = clock, script, finish
        self.watch(Recorder(clock), {})

    def watch(self, recorder: Recorder, actions: Mapping[str, str]) -> None:
        """Record the coming steps, with these actions of Lightning's as parts."""
        self.recorder, self.actions = recorder, actions

    def start(self, action_name: str) -> None:
        if action_name == REQUEST:
            self.recorder.end()
            if next(self.script, self) is self:
                self.finish()
            self.recorder.begin()
        action = action_name.rpartition(".")[2]
        if action in NO_TRAINING:
            self.recorder.end()
        elif action in self.actions:
            self.recorder.enter(self.actions[action])

    def stop(self, action_name: str) -> None:
        if action_name == "run_training_epoch":
            self.recorder.end()
        elif action_name.rpartition(".")[2] in self.actions:
            self.recorder.leave()


@contextmanager
def parts_of(trainer: Trainer, recorder: Recorder) -> Iterator[None]:
    """Record the parts that are no actions of Lightning's."""
    optimizer, scaler = trainer.optimizers[0], scaler_of(trainer)
    places: list[tuple[Any, str, str]] = [
        (trainer.lightning_module, "forward", "forward"),
        (F, "cross_entropy", "loss"),
        (optimizer, "step", "optimizer"),
    ]
    if scaler is not None:
        # its step is the optimizer's, and before that the check for inf, of which the unscaling is a part
        parts = {"scale": "loss", "unscale_": "unscale", "step": "unscale", "update": "scaler update"}
        places += [(scaler, name, part) for name, part in parts.items()]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(_replaced(owner, name, recorder.within(part, getattr(owner, name))))
        yield


@contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:  # it is the class's
            delattr(owner, name)
