"""The work that takes the time of a training step: matrix products, casts, the optimizer, and the rest."""

import bisect
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.profiler import record_function
from torch.utils.flop_counter import FlopCounterMode

from mnist_amp.measuring.operation_kinds import CAST, KINDS, kind_of
from mnist_amp.measuring.step_parts import REQUEST_RANGE, TRANSFER_RANGE, VALIDATION_RANGE, replaced

LOADER = "enumerate(DataLoader)"  # the range in which torch's profiler sees a DataLoader
CLOSURE = "mnist-amp: closure of an optimizer"  # Lightning runs the forward and the backward pass within it


def seconds_by_kind(events: Iterable[Any], on_cuda: bool, batches: int = 1) -> dict[str, float]:
    """Return the seconds of the operations of a step, by kind: for each kind, the median of the steps in a profile.

    The operations in which a loader makes a batch are no part of it: the step waits for them.

    Args:
        events: of `torch.profiler.profile`, recorded with CPU activity, on a CUDA device with CUDA activity as well,
            and with the ranges of `step_parts.RANGES`.
        on_cuda: whether to take the time of the kernels, instead of that of the host.
        batches: number of requests for a batch in a step.
    """
    hosts = [event for event in events if event.device_type.name == "CPU"]
    starts = sorted(event.time_range.start for event in hosts if event.name == REQUEST_RANGE)
    steps = [dict.fromkeys(KINDS, 0.0) for _ in range(len(starts) // batches)]
    for event in hosts:
        step = (bisect.bisect_right(starts, event.time_range.start) - 1) // batches
        if event.cpu_parent is None and 0 <= step < len(steps):
            _add(event, steps[step], on_cuda)
    return {kind: statistics.median([found[kind] for found in steps]) if steps else 0.0 for kind in KINDS}


def _add(event: Any, found: dict[str, float], on_cuda: bool) -> None:
    """Add the time of an event to its kind. Operations within a product or an optimizer belong to it, except casts."""
    if event.name in (REQUEST_RANGE, VALIDATION_RANGE) or event.name.startswith(LOADER):
        return
    kind = "other operations" if event.name == TRANSFER_RANGE else kind_of(event.name)
    if kind is None or (kind == "other operations" and event.name != TRANSFER_RANGE):
        if kind is not None:
            found[kind] += (event.self_device_time_total if on_cuda else event.self_cpu_time_total) / 1e6
        for child in event.cpu_children:
            _add(child, found, on_cuda)
        return
    others = _within(event, {"optimizer": CLOSURE, "matrix products": CAST}.get(kind, ""))
    found[kind] += (_total(event, on_cuda) - sum(_total(other, on_cuda) for other in others)) / 1e6
    for other in others:
        _add(other, found, on_cuda)


def _within(event: Any, name: str) -> list[Any]:
    """Return the outermost events of a name within an event."""
    within = [[child] if child.name == name else _within(child, name) for child in event.cpu_children]
    return [other for found in within for other in found]


def _total(event: Any, on_cuda: bool) -> float:
    """Return the microseconds of an event with the events within it."""
    return float(event.device_time_total if on_cuda else event.cpu_time_total)


def shares(seconds: dict[str, float], step: float, waiting: float, on_cuda: bool) -> dict[str, float]:
    """Return the share of a step's time by what it is spent on, 0 to 1; they add up to 1.

    The rest is overhead: Python, Lightning's hooks and the dispatch of operations. On a CUDA device, it is the time in
    which the device has nothing to do, because the host has not launched the next kernel yet.

    >>> shares({"matrix products": 2.0, "casts": 1.0}, step=5.0, waiting=1.0, on_cuda=False)
    {'waiting for data': 0.2, 'matrix products': 0.4, 'casts': 0.2, 'overhead': 0.2}

    Args:
        seconds: of the operations of a step, by kind.
        step: seconds of a step without a profiler.
        waiting: seconds in which the host waited for data. A CUDA device may work meanwhile.
        on_cuda: whether the operations run beside the host.
    """
    busy = sum(seconds.values())
    waiting = min(waiting, max(step - busy, 0.0)) if on_cuda else waiting
    total = max(step, waiting + busy)  # the profiler may make operations a little slower
    found = {"waiting for data": waiting, **seconds}
    return {name: value / total for name, value in {**found, "overhead": total - waiting - busy}.items()}


@contextmanager
def marked_closures(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Mark the closures of optimizers for torch's profiler, in this context: they are no work of an optimizer."""
    with ExitStack() as stack:
        for optimizer in optimizers:
            stack.enter_context(replaced(optimizer, "step", _with_marked_closure(optimizer.step)))
        yield


def _with_marked_closure(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("closure") is not None:
            kwargs["closure"] = record_function(CLOSURE)(kwargs["closure"])
        return step(*args, **kwargs)

    return marked


def flops_counter() -> FlopCounterMode:
    """Return a context that counts the floating-point operations of matrix products and convolutions.

    Its `get_total_flops()` counts a multiplication and an addition as two. Backward passes count. Element-wise
    operations, normalisation, embeddings, optimizers and LSTM do not.
    """
    return FlopCounterMode(display=False)


def peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure how many floating-point operations a device does in a second, in large matrix products.

    Square matrices of 256 to 16384 (2048 on a CPU) are multiplied, until one takes too long; the fastest counts.

    Args:
        device: CPU or CUDA.
        dtype: of the matrices.
        seconds: about how long to measure.

    Returns:
        Operations a second: a product of n x n matrices has 2n³.
    """
    best, size, most = 0.0, 256, 2048 if device.type == "cpu" else 16384
    while size <= most:
        try:
            taken = _product_seconds(device, dtype, size, seconds / 4)
        except torch.OutOfMemoryError:  # the model is in memory as well
            break
        best = max(best, 2 * size**3 / taken)
        if taken > seconds / 8:
            break
        size *= 2
    return best


def _product_seconds(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    """Return the least time of a product of two square matrices, over at least two products after the first."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if times[-1] > 2 * seconds:
            break  # an emulated dtype
    return min(times)
