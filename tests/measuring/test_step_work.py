"""The work of a step: kinds of operations, floating-point operations, and the peak of the device."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from mnist_amp.measuring.operation_kinds import KINDS, kind_of
from mnist_amp.measuring.step_parts import REQUEST_RANGE, TRANSFER_RANGE
from mnist_amp.measuring.step_work import (
    CLOSURE,
    flops_counter,
    marked_closures,
    peak_flops,
    seconds_by_kind,
    shares,
)


def event(name: str, microseconds: float, *children: Any, start: float = 1.0) -> Any:
    """Return an event of a profile; half of its time is the device's."""
    own = microseconds - sum(child.cpu_time_total for child in children)
    found = SimpleNamespace(
        name=name,
        cpu_parent=None,
        cpu_children=list(children),
        device_type=SimpleNamespace(name="CPU"),
        time_range=SimpleNamespace(start=start),
        cpu_time_total=microseconds,
        self_cpu_time_total=own,
        device_time_total=microseconds / 2,
        self_device_time_total=own / 2,
    )
    for child in children:
        child.cpu_parent = found
    return found


def request(start: float) -> Any:
    """Return the range of a request for a batch, with work of the loader in it."""
    return event(REQUEST_RANGE, 100.0, event("aten::mm", 90.0), start=start)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((f"aten::{name}", "matrix products") for name in ("mm", "addmm", "bmm", "baddbmm", "convolution_backward")),
        *(
            (f"aten::{name}", "matrix products")
            for name in ("mkldnn_convolution", "cudnn_convolution", "_thnn_conv2d", "mv")
        ),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "matrix products"),
        ("aten::mkldnn_rnn_layer", "matrix products"),
        ("aten::_to_copy", "casts"),
        ("aten::copy_", "other operations"),
        ("aten::native_batch_norm", "other operations"),
        ("aten::_fused_adam_", "other operations"),
        ("aten::_convert_indices_from_coo_to_csr", "other operations"),
        ("Optimizer.step#Adam.step", "optimizer"),
        ("autograd::engine::evaluate_function: AddmmBackward0", None),
        (CLOSURE, None),
    ],
)
def test_the_kind_of_an_operation(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(("on_cuda", "factor"), [(False, 1.0), (True, 0.5)])
def test_each_operation_counts_once_and_a_closure_is_no_work_of_the_optimizer(on_cuda: bool, factor: float) -> None:
    cast = event("aten::to", 11.0, event("aten::_to_copy", 10.0, event("aten::copy_", 8.0)))
    linear = event("aten::linear", 50.0, cast, event("aten::addmm", 30.0))  # as autocast does it
    closure = event(CLOSURE, 70.0, linear)
    step = event("Optimizer.step#SGD.step", 100.0, event("some range", 70.0, closure), event("aten::add_", 20.0))
    other = event("aten::dropout", 9.0, event("aten::mul", 4.0))
    transfer = event(TRANSFER_RANGE, 2.0, event("aten::_to_copy", 2.0))
    loader = event("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 50.0, event("aten::mm", 40.0))
    unrelated = SimpleNamespace(device_type=SimpleNamespace(name="CUDA"))
    found = seconds_by_kind([request(0.5), step, other, transfer, loader, unrelated], on_cuda)
    expected = {"matrix products": 40e-6, "casts": 10e-6, "optimizer": 30e-6, "other operations": 11e-6}
    assert found == pytest.approx({kind: factor * seconds for kind, seconds in expected.items()})


def test_a_kind_has_the_median_of_the_steps() -> None:
    steps = [
        (start, event("aten::mm", length, start=start + 1)) for start, length in ((0, 5.0), (10, 7.0), (20, 600.0))
    ]
    events = [each for start, product in steps for each in (request(start), product)]
    before = event("aten::mm", 1000.0, start=-1)  # the end of a step that began earlier
    assert seconds_by_kind([before, *events], on_cuda=False)["matrix products"] == pytest.approx(7e-6)
    two = seconds_by_kind(events, on_cuda=False, batches=2)  # of three requests, two are a step
    assert two["matrix products"] == pytest.approx(12e-6)


def test_a_real_step_has_all_kinds() -> None:
    layer = nn.Linear(64, 64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    def closure() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(torch.ones(8, 64)).float().square().mean()
        torch.autograd.backward(loss)
        return loss

    with profile(activities=[ProfilerActivity.CPU]) as found, marked_closures([optimizer]):
        with record_function(REQUEST_RANGE):
            torch.ones(2) @ torch.ones(2)
        optimizer.step(closure=closure)
    assert "step" not in vars(optimizer)
    times = seconds_by_kind(found.events(), on_cuda=False)
    assert list(times) == list(KINDS)
    assert all(seconds > 0 for seconds in times.values())
    names = {event.name for event in found.events()}
    assert {CLOSURE, "aten::addmm"} <= names


@pytest.mark.parametrize(
    ("seconds", "step", "waiting", "on_cuda", "expected"),
    [
        ({"matrix products": 2.0, "casts": 1.0}, 5.0, 1.0, False, [0.2, 0.4, 0.2, 0.2]),
        ({"matrix products": 4.0, "casts": 1.0}, 5.0, 1.0, False, [1 / 6, 4 / 6, 1 / 6, 0.0]),  # more than the step
        ({"matrix products": 4.0, "casts": 0.5}, 5.0, 2.0, True, [0.1, 0.8, 0.1, 0.0]),  # the device works meanwhile
        ({"matrix products": 2.0, "casts": 0.5}, 5.0, 1.0, True, [0.2, 0.4, 0.1, 0.3]),
    ],
)
def test_shares_add_up_to_the_step(
    seconds: dict[str, float], step: float, waiting: float, on_cuda: bool, expected: list[float]
) -> None:
    found = shares(seconds, step, waiting, on_cuda)
    assert list(found) == ["waiting for data", *seconds, "overhead"]
    assert list(found.values()) == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1.0)


def test_flops_of_a_linear_layer_and_a_convolution() -> None:
    """A product of (m, k) and (k, n) has 2mkn; the backward pass has one for the weights, and one for the inputs."""
    batch, linear = 8, nn.Linear(32, 16)
    inputs = torch.ones(batch, 32, requires_grad=True)
    with flops_counter() as counter:
        torch.autograd.backward(linear(inputs).sum())
    assert counter.get_total_flops() == 3 * (2 * batch * 32 * 16)
    convolution = nn.Conv2d(3, 5, kernel_size=3, padding=1)
    with flops_counter() as counter:
        torch.autograd.backward(F.relu(convolution(torch.ones(batch, 3, 7, 7))).sum())
    assert counter.get_total_flops() == 2 * (2 * batch * 7 * 7 * 3 * 5 * 3 * 3)  # the inputs need no gradient


def test_flops_are_the_same_under_autocast() -> None:
    linear = nn.Linear(32, 16)
    with flops_counter() as counter, torch.autocast("cpu", torch.bfloat16):
        linear(torch.ones(8, 32))
    assert counter.get_total_flops() == 2 * 8 * 32 * 16


def test_the_peak_is_that_of_the_fastest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {256: 1e-3, 512: 4e-3, 1024: 64e-3, 2048: 1.0}
    asked = []

    def seconds(device: torch.device, dtype: torch.dtype, size: int, most: float) -> float:
        asked.append(size)
        return taken[size]

    monkeypatch.setattr("mnist_amp.measuring.step_work._product_seconds", seconds)
    assert peak_flops(torch.device("cpu"), torch.float32) == 2 * 512**3 / 4e-3
    assert asked == [256, 512, 1024]  # which takes too long for a larger one


def test_float32_has_a_peak_on_any_device() -> None:
    assert peak_flops(torch.device("cpu"), torch.float32, seconds=0.01) > 1e8
