"""Timing of the calls of several ways of inference, which take turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mnist_amp.cli.error_messages import is_of_memory
from mnist_amp.measuring.inference_inputs import resized, short_error
from mnist_amp.measuring.inference_records import Timing
from mnist_amp.measuring.inference_ways import Way

ROUNDS = 5
WARM_UP = 0.1  # share of the time of a turn
Clock = Callable[[], float]


def device_clock(device: torch.device) -> Clock:
    """Return a clock that waits until a device has finished its work."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def time_ways(ways: Sequence[Way], inputs: Any, batch_size: int, seconds: float, clock: Clock) -> dict[str, Timing]:
    """Time calls with inputs of one size.

    The ways take turns, so that a change of the machine's load hits all of them. A way whose calls are slower than its
    turn leaves out turns, but has at least one call.

    Args:
        ways: which all run with that size.
        inputs: of any size, as `find_inputs` returns them.
        batch_size: number of inputs of a call.
        seconds: how long to time each way.
        clock: returns seconds.

    Returns:
        The timing by the name of the way.
    """
    batch = resized(inputs, batch_size)
    times: dict[str, list[list[float]]] = {way.name: [] for way in ways}
    for turn in range(1, ROUNDS + 1):
        for way in ways:
            left = seconds * turn / ROUNDS - sum(map(sum, times[way.name]))
            if left > 0 or not times[way.name]:
                times[way.name].append(_time_turn(way, batch, left, clock))
    return {name: _timing(turns, batch_size) for name, turns in times.items()}


def _time_turn(way: Way, batch: Any, seconds: float, clock: Clock) -> list[float]:
    way.prepare()
    converted = way.convert(batch)
    _time_calls(way, converted, WARM_UP * seconds, clock)
    return _time_calls(way, converted, seconds, clock)


def _time_calls(way: Way, converted: Any, seconds: float, clock: Clock) -> list[float]:
    times: list[float] = []
    while not times or sum(times) < seconds:
        started = clock()
        way.run(converted)
        times.append(clock() - started)
    return times


def _timing(turns: list[list[float]], batch_size: int) -> Timing:
    calls = sorted(time for turn in turns for time in turn)
    p90 = calls[-(-9 * len(calls) // 10) - 1]
    return Timing(batch_size, [statistics.median(turn) for turn in turns], p90, len(calls))


def largest_batch(ways: Sequence[Way], inputs: Any, start: int) -> tuple[int, dict[str, str]]:
    """Return a batch size for which the memory suffices in all ways, and the error of each way that fails with it.

    Args:
        ways: which all run with one input.
        inputs: of any size.
        start: the size to begin with; it is halved until the memory suffices.
    """
    size = start
    while True:
        errors = _failures(ways, inputs, size)
        if size == 1 or not any(is_of_memory(error) for error in errors.values()):
            return size, {name: short_error(error) for name, error in errors.items()}
        size //= 2


def _failures(ways: Sequence[Way], inputs: Any, size: int) -> dict[str, Exception]:
    """Return the error of each way that fails with a batch size; an error of memory ends the search."""
    errors: dict[str, Exception] = {}
    for way in ways:
        try:
            way.prepare()
            way.run(way.convert(resized(inputs, size)))
        except Exception as error:
            errors[way.name] = error
            if is_of_memory(error):
                break
    if errors and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return errors
