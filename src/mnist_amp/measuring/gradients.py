"""The magnitude of gradients, counted by power of two, and how fp16 would round them."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.measuring.profile_records import GradientSizes

LEAST = -149  # exponent of the smallest float32
GREATEST = 127  # exponent of the largest float32
FP16_NORMAL = 2.0**-14  # the smallest normal fp16; a smaller value has fewer bits


class GradientCounts:
    """Counts gradient values by magnitude. Non-finite values are left out, because the scaler skips their steps.

    >>> counts = GradientCounts()
    >>> counts.add(torch.tensor([0.0, 1.0, 1.5, 2.0**-25]))
    >>> counts.sizes()
    GradientSizes(steps=0, exponents={-25: 1, 0: 2}, zeros=1, flushed_by_fp16=0.333..., subnormal_in_fp16=0.0)

    Attributes:
        steps: optimizer steps whose gradients were counted.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._exponents = torch.zeros(GREATEST - LEAST + 1, dtype=torch.int64)
        self._zeros = self._flushed = self._subnormal = 0

    def add(self, gradient: Tensor) -> None:
        values = gradient.detach().float().abs()
        values = values[values.isfinite()]
        found = values[values != 0]
        self._zeros += len(values) - len(found)
        exponents = torch.frexp(found).exponent - 1 - LEAST
        self._exponents += exponents.bincount(minlength=len(self._exponents)).cpu()
        half = found.half()
        self._flushed += int((half == 0).sum())
        self._subnormal += int(((half != 0) & (half < FP16_NORMAL)).sum())

    def sizes(self) -> GradientSizes:
        """Return the counts."""
        values = max(int(self._exponents.sum()), 1)
        return GradientSizes(
            steps=self.steps,
            exponents={LEAST + index: count for index, count in enumerate(self._exponents.tolist()) if count},
            zeros=self._zeros,
            flushed_by_fp16=self._flushed / values,
            subnormal_in_fp16=self._subnormal / values,
        )


@contextmanager
def gradients_of(optimizers: Iterable[Optimizer]) -> Iterator[GradientCounts]:
    """Count the gradients of the steps that optimizers take in this context."""
    counts = GradientCounts()

    def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # after the step, because a fused optimizer unscales them in it, unless it skips it
        if not getattr(optimizer, "found_inf", 0):
            counts.steps += 1
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        counts.add(parameter.grad)

    with ExitStack() as stack:
        for optimizer in optimizers:
            stack.callback(optimizer.register_step_post_hook(count).remove)
        yield counts
