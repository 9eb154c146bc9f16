import pytest
import torch

from mnist_amp.measuring.gradients import GradientCounts, gradients_of
from mnist_amp.measuring.profile_records import GradientSizes


def test_values_are_counted_by_power_of_two() -> None:
    counts = GradientCounts()
    counts.add(torch.tensor([[0.0, -0.0, 1.0, 1.5], [-1.99, 2.0, 0.5, 65504.0]]))
    counts.add(torch.tensor([2.0**-149, -(2.0**-25), 2.0**-24, 1.5 * 2.0**-25, 2.0**-15, 2.0**-14]))
    counts.add(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    assert counts.sizes() == GradientSizes(
        steps=0,
        exponents={-149: 1, -25: 2, -24: 1, -15: 1, -14: 1, -1: 1, 0: 3, 1: 1, 15: 1},
        zeros=2,
        flushed_by_fp16=2 / 12,  # 2^-149, and 2^-25, which is halfway to the smallest
        subnormal_in_fp16=3 / 12,
    )


def test_only_zeros() -> None:
    counts = GradientCounts()
    counts.add(torch.zeros(3))
    assert counts.sizes() == GradientSizes(0, {}, 3, flushed_by_fp16=0.0, subnormal_in_fp16=0.0)


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_unscaled_and_skipped_steps_are_not_counted(fused: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with gradients_of([optimizer]) as counts:
        for gradient in ([0.25, 8.0], [torch.inf, 1.0], [0.25, 0.0]):
            weight.grad = None
            scaler.scale((weight * torch.tensor(gradient)).sum()).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
    weight.grad = torch.ones(2)
    optimizer.step()  # after the context, so not counted
    assert counts.sizes() == GradientSizes(2, {-2: 2, 3: 1}, 1, flushed_by_fp16=0.0, subnormal_in_fp16=0.0)
