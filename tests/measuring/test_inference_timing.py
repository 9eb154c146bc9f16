"""The timing of ways that only advance a clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from mnist_amp.measuring.inference_records import Timing
from mnist_amp.measuring.inference_timing import largest_batch, time_ways


@dataclass
class Clock:
    now: float = 0.0
    turns: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeWay:
    name: str
    seconds: float
    clock: Clock
    check: Callable[[Any], None] = lambda inputs: None

    def prepare(self) -> None:
        self.clock.turns.append(self.name)

    def convert(self, inputs: Any) -> Any:
        return inputs

    def run(self, inputs: Any) -> None:
        self.check(inputs)
        self.clock.now += self.seconds


def test_the_ways_take_turns_and_a_slow_one_leaves_out_turns() -> None:
    clock = Clock()
    ways = [FakeWay("fast", 0.0625, clock), FakeWay("slow", 1.0, clock)]
    timings = time_ways(ways, torch.zeros(3, 1), 2, 1.25, clock)
    assert clock.turns == ["fast", "slow", "fast", "fast", "fast", "fast", "slow"]
    assert timings == {
        "fast": Timing(batch_size=2, seconds=[0.0625] * 5, p90=0.0625, calls=20),
        "slow": Timing(batch_size=2, seconds=[1.0, 1.0], p90=1.0, calls=2),
    }


def test_calls_that_warm_up_are_not_timed() -> None:
    clock = Clock()
    costs = iter([8.0, *[1.0] * 9, 2.0, *[8.0, 11.0] * 4])  # in each turn the first call takes 8 s
    way = FakeWay("way", 0.0, clock)

    def spend(inputs: torch.Tensor) -> None:
        clock.now += next(costs)

    way.check = spend
    assert time_ways([way], torch.zeros(1, 1), 1, 55.0, clock) == {
        "way": Timing(batch_size=1, seconds=[1.0, *[11.0] * 4], p90=11.0, calls=14)
    }


def too_large(limit: int, error: Exception) -> Callable[[Any], None]:
    def check(inputs: torch.Tensor) -> None:
        if len(inputs) > limit:
            raise error

    return check


def test_the_batch_is_halved_until_the_memory_suffices_in_all_ways() -> None:
    clock = Clock()
    small = FakeWay("small", 0.0, clock, too_large(20, torch.OutOfMemoryError("no memory")))
    fixed = FakeWay("fixed", 0.0, clock, too_large(1, ValueError("only one input\nis taken")))
    inputs = torch.zeros(3, 1)
    assert largest_batch([FakeWay("any", 0.0, clock), small], inputs, 64) == (16, {})
    assert largest_batch([fixed, small], inputs, 64) == (16, {"fixed": "ValueError: only one input"})


def test_a_way_without_memory_for_one_input_fails() -> None:
    never = FakeWay("never", 0.0, Clock(), too_large(0, torch.OutOfMemoryError("no memory")))
    assert largest_batch([never], torch.zeros(3, 1), 4) == (1, {"never": "OutOfMemoryError: no memory"})
