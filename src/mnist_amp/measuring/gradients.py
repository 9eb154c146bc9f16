"""How large gradients are, counted by power of two, and what fp16 would make of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LEAST = -149  # exponent of the smallest float32
GREATEST = 127
FP16_NORMAL = 2.0**-14  # smallest; below it fp16 has fewer bits the smaller the value is


class GradientCounts:
    """Counts gradient values; those that are not finite are left out, as the scaler leaves their steps out."""

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

    def record(self) -> dict[str, Any]:
        """Return the counts, and the shares of the values that are not zero (0 to 1)."""
        values = max(int(self._exponents.sum()), 1)
        return {
            "steps": self.steps,
            "exponents": {LEAST + place: count for place, count in enumerate(self._exponents.tolist()) if count},
            "zeros": self._zeros,
            "flushed_by_fp16": self._flushed / values,
            "subnormal_in_fp16": self._subnormal / values,
        }


@contextmanager
def gradients_of(optimizer: Optimizer) -> Iterator[GradientCounts]:
    """Count the gradients that the optimizer's steps in this context apply."""
    counts = GradientCounts()

    def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # after the step, as a fused optimizer has then unscaled them, unless it has skipped the step
        if not getattr(optimizer, "found_inf", 0):
            counts.steps += 1
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        counts.add(parameter.grad)

    handle = optimizer.register_step_post_hook(count)
    try:
        yield counts
    finally:
        handle.remove()
