"""The work that takes the time of a training step: matrix products, casts, the optimizer, and the rest."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.profiler import record_function
from torch.utils.flop_counter import FlopCounterMode

from mnist_amp.measuring.operation_kinds import KINDS, kind_of
from mnist_amp.measuring.step_parts import replaced

CLOSURE = "mnist-amp: closure of an optimizer"  # Lightning runs the forward and the backward pass within it


def seconds_by_kind(events: Iterable[Any], on_cuda: bool) -> dict[str, float]:
    """Return the seconds of the operations of a profile, by kind, each operation once.

    Args:
        events: of `torch.profiler.profile`, recorded with CPU activity; on a CUDA device with CUDA activity as well.
        on_cuda: whether to take the time of the kernels, instead of that of the host.
    """
    found = dict.fromkeys(KINDS, 0.0)
    for event in events:
        if event.cpu_parent is None and event.device_type.name == "CPU":
            _add(event, found, on_cuda)
    return found


def _add(event: Any, found: dict[str, float], on_cuda: bool) -> None:
    """Add the time of an event; an operation within a product, a cast or an optimizer belongs to it."""
    kind = kind_of(event.name)
    if kind in ("matrix products", "casts", "optimizer"):
        closures = _closures(event) if kind == "optimizer" else []
        found[kind] += (_total(event, on_cuda) - sum(_total(closure, on_cuda) for closure in closures)) / 1e6
        for closure in closures:
            _add(closure, found, on_cuda)
        return
    if kind is not None:
        found[kind] += (event.self_device_time_total if on_cuda else event.self_cpu_time_total) / 1e6
    for child in event.cpu_children:
        _add(child, found, on_cuda)


def _closures(event: Any) -> list[Any]:
    """Return the outermost closures within an optimizer's step."""
    within = [[child] if child.name == CLOSURE else _closures(child) for child in event.cpu_children]
    return [closure for found in within for closure in found]


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
        taken = _product_seconds(device, dtype, size, seconds / 4)
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
