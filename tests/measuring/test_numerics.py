"""The numerics of one training step, of modules whose numerics are known."""

import doctest
import math
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mnist_amp.errors import RunError
from mnist_amp.measuring import numerics, numerics_step
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.numerics import difference, largest_exponent, measure_numerics
from mnist_amp.measuring.numerics_records import Difference, Numerics, Remedy, Risk
from mnist_amp.measuring.precisions import PRECISIONS
from tests.conftest import Run
from tests.measuring.numerics_modules import Plain, TwoOptimizers, inputs

MODULES = "tests.measuring.numerics_modules"


def measured(name: str, *precisions: str, warmup: int = 0, rows: int = 4, **parameters: Any) -> Numerics:
    config = {
        "model": {"class_path": f"{MODULES}.{name}", "init_args": parameters},
        "data": {"class_path": f"{MODULES}.Data", "init_args": {"rows": rows}},
        "trainer": {"accelerator": "cpu"},
        "seed_everything": 42,
    }
    return measure_numerics(config, {each: PRECISIONS[each] for each in precisions}, warmup)


@pytest.fixture(autouse=True)
def quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what fits change in this process; `run` does it at its end."""
    monkeypatch.delenv("MNIST_AMP_DATA__DATA_DIR")


def plain_loss(module: Plain, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        return mse_loss(module.second(module.relu(module.first(x))).float(), x.sum(1, keepdim=True))


def plain_gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in module.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(module.parameters())), strict=True))


def test_differences_equal_those_of_a_loop_in_plain_torch() -> None:
    found = measured("Plain", "bf16-mixed", warmup=3)
    module = Plain()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        plain_loss(module, inputs(), None).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    reference = plain_gradients(module, plain_loss(module, inputs(), None))
    half = plain_gradients(module, plain_loss(module, inputs(), torch.bfloat16))
    assert [parameter.name for parameter in found.parameters] == list(reference)
    for parameter in found.parameters:
        wanted, other = (each[parameter.name].double().flatten() for each in (reference, half))
        assert parameter.norm == pytest.approx(float(wanted.norm()), rel=1e-5)
        result = found.precisions[0].differences[parameter.name]
        assert result.error == pytest.approx(float((wanted - other).norm() / wanted.norm()), rel=1e-2)
        assert result.cosine == pytest.approx(float(wanted @ other / wanted.norm() / other.norm()), rel=1e-5)
        assert result.flushed == 0
        assert parameter.noise is not None
        assert parameter.noise < 1e-5
    assert (found.warmup, found.rows, found.batch_rows, found.risks()) == (3, 4, 4, [])


def test_activations_equal_those_of_plain_torch() -> None:
    module, x = Plain().requires_grad_(False), inputs()
    first = module.first(x)
    layers = measured("Plain", "bf16-mixed").layers
    assert [(layer.layer, layer.kind, layer.types) for layer in layers] == [
        ("first", "Linear", {"bf16-mixed": "bfloat16"}),
        ("relu", "ReLU", {"bf16-mixed": "bfloat16"}),
        ("second", "Linear", {"bf16-mixed": "bfloat16"}),
    ]
    for layer, wanted, given in zip(
        layers, (first, first.relu(), module.second(first.relu())), (x, first, first.relu()), strict=True
    ):
        assert layer.largest == pytest.approx(float(wanted.abs().max()), rel=1e-6)
        assert layer.largest_input == pytest.approx(float(given.abs().max()), rel=1e-6)


@pytest.mark.parametrize(("name", "warmup"), [("Plain", 2), ("Harmless", 2), ("TwoOptimizers", 0)])
def test_float32_against_itself(name: str, warmup: int) -> None:
    found = measured(name, "32-true", warmup=warmup)
    (precision,) = found.precisions
    assert precision.effective == "32-true"
    differences = {precision.differences[parameter.name] for parameter in found.parameters if parameter.norm}
    assert differences == {Difference(cosine=1.0, error=0.0, flushed=0.0)}


@pytest.mark.parametrize("fused", [False, True])
def test_the_largest_loss_scale_is_that_of_trying_all(fused: bool) -> None:
    (precision,) = measured("Plain", "fp16-cpu", fused=fused, factor=0.01).precisions
    module = Plain()

    def is_finite(exponent: int) -> bool:
        loss = 0.01 * plain_loss(module, inputs(), torch.float16) * 2.0**exponent
        return all(bool(each.isfinite().all()) for each in plain_gradients(module, loss).values())

    finite = [exponent for exponent in range(-24, 40) if is_finite(exponent)]
    assert finite == list(range(-24, finite[-1] + 1))
    scaling = precision.scaling
    assert scaling is not None
    assert (scaling.first, scaling.largest, scaling.is_limit) == (65536.0, 2.0 ** finite[-1], False)
    assert scaling.used == min(65536.0, 2.0 ** finite[-1])
    assert set(scaling.unscaled.values()) == set(scaling.at_largest.values()) == {0.0}
    for result in precision.differences.values():
        assert result.error is not None
        assert 0 < result.error < 0.01  # fp16 rounds to 0.0005


def test_each_step_is_the_first_of_a_fit() -> None:
    """A module may alternate by the number of the batch, or depend on the epoch."""
    Plain.positions.clear()
    measured("Plain", "bf16-mixed", "fp16-cpu", warmup=2)
    assert Plain.positions[:3] == [(0, 0, 0), (1, 0, 1), (2, 0, 2)]  # an epoch has one batch
    assert set(Plain.positions[3:]) == {(0, 0, 0)}
    assert len(Plain.positions) == 3 + 2 + 1 + (1 + 7 + 1)


def test_the_compared_step_is_one_that_does_not_overflow() -> None:
    found = measured("Plain", "fp16-cpu", factor=1000.0)
    scaling = found.precisions[0].scaling
    assert scaling is not None
    assert scaling.largest is not None
    assert scaling.used == scaling.largest < 65536.0
    assert all(result.cosine is not None for result in found.precisions[0].differences.values())
    assert found.risks() == []


def test_one_overflow_and_one_underflow_are_named() -> None:
    found = measured("Risky", "bf16-mixed", "fp16-cpu")
    assert found.risks() == [
        Risk("overflow", "large", "fp16-cpu", 1_440_000.0),
        Risk("underflow", "small", "fp16-cpu", 1.0),
    ]
    bf16, fp16 = found.precisions
    assert (bf16.remedy, fp16.remedy) == (None, Remedy(["large"], works=True))
    assert fp16.scaling is not None
    assert fp16.scaling.unscaled["small.weight"] == 1.0
    assert [name for name, share in fp16.scaling.unscaled.items() if share] == ["small.weight", "small.bias"]


def test_a_layer_that_takes_a_large_input_is_run_in_float32_as_well() -> None:
    found = measured("Chain", "fp16-cpu")
    assert found.precisions[0].remedy == Remedy(["large", "last"], works=True)
    assert [(risk.kind, risk.layer) for risk in found.risks()] == [("overflow", "large")]


@pytest.mark.parametrize(("precisions", "name"), [(["fp16-cpu"], "fp16-cpu"), (["bf16-mixed"], "fp16")])
def test_an_activation_near_the_limit_is_named_with_and_without_a_step_in_fp16(
    precisions: list[str], name: str
) -> None:
    risks = measured("Near", *precisions).risks()
    assert risks[0] == Risk("near overflow", "large", name, 24_000.0)
    assert {risk.layer for risk in risks} <= {"large", "small"}


def test_an_overflow_follows_from_the_step_in_float32() -> None:
    assert measured("Risky", "bf16-mixed").risks() == [Risk("overflow", "large", "fp16", 1_440_000.0)]


def test_dropout_zero_gradients_and_masks_raise_no_alarm() -> None:
    found = measured("Harmless", "bf16-mixed", "fp16-cpu", warmup=5, rows=8)
    assert found.risks() == []
    zeros = {parameter.name for parameter in found.parameters if parameter.is_zero}
    assert zeros == {"features.0.bias", "idle.weight", "idle.bias"}
    assert [precision.error for precision in found.precisions] == [None, None]


@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-cpu"])
def test_several_optimizers_see_the_same_weights(precision: str) -> None:
    """With a learning rate of 10, the first optimizer's step would change the second one's gradients."""
    found = measured("TwoOptimizers", precision)
    module, x = TwoOptimizers(), inputs()
    loss = mse_loss(module.second(module.first(x)), x.sum(1, keepdim=True))
    wanted = {name: float(gradient.norm()) for name, gradient in plain_gradients(module, loss).items()}
    assert {each.name: pytest.approx(each.norm, rel=1e-5) for each in found.parameters} == wanted
    for result in found.precisions[0].differences.values():
        assert result.cosine is not None
        assert result.cosine > 0.999


def test_gradients_that_no_optimizer_has_used_are_unscaled() -> None:
    (precision,) = measured("TwoOptimizers", "fp16-cpu", steps=False).precisions
    assert len(precision.differences) == 4
    for result in precision.differences.values():
        assert result.error is not None
        assert result.error < 0.01


def test_a_precision_that_fails_is_a_record_with_its_layer() -> None:
    found = measured("Refuses", "bf16-mixed", "64-true")
    failed, double = found.precisions
    assert (failed.name, failed.failed_layer, failed.differences) == ("bf16-mixed", "second.0", {})
    assert failed.error == "TypeError: half precision is not supported here"
    assert double.error is None
    assert len(double.differences) == len(found.parameters) == 4


@pytest.mark.parametrize(("hardware", "rows"), [(False, 8), (True, 12)])
def test_where_fp16_is_emulated_a_part_of_the_batch_is_used(
    monkeypatch: pytest.MonkeyPatch, hardware: bool, rows: int
) -> None:
    monkeypatch.setattr(numerics, "half_hardware", lambda trainer, dtype: hardware)
    found = measured("Plain", "fp16-cpu", rows=12)
    assert (found.rows, found.batch_rows) == (rows, 12)
    module = Plain()
    wanted = plain_gradients(module, plain_loss(module, inputs(12)[:rows], None))
    assert {each.name: pytest.approx(each.norm, rel=1e-5) for each in found.parameters} == {
        name: float(gradient.norm()) for name, gradient in wanted.items()
    }
    assert measured("Plain", "bf16-mixed", rows=12).rows == 12


def test_of_this_project_in_a_process_of_its_own(data_dir: Path) -> None:
    config = {
        "network": {"class_path": "SimpleNN", "init_args": {"hidden_dim": 8}},
        "data": {"data_dir": str(data_dir), "batch_size": 4},
        "trainer": {"accelerator": "cpu", "gradient_clip_val": 1.0, "accumulate_grad_batches": 2},
    }
    precisions = {name: PRECISIONS[name] for name in ("bf16-mixed", "fp16-cpu")}
    found = run_isolated(measure_numerics, config, precisions, 2)
    assert found == measure_numerics(config, precisions, 2)
    assert [parameter.layer for parameter in found.parameters] == ["model.fc1"] * 2 + ["model.fc2"] * 2
    assert Numerics.from_json(found.to_json()) == pickle.loads(pickle.dumps(found)) == found


def test_a_step_that_is_not_finite_in_float32_is_an_error() -> None:
    with pytest.raises(RunError) as error:
        measured("Plain", "bf16-mixed", factor=1e39)
    assert str(error.value) == "the gradient of first.weight is not finite in float32, so nothing could be compared"


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ([3.0, 4.0, 0.0], Difference(1.0, 0.0, 0.0)),
        ([-3.0, -4.0, 0.0], Difference(-1.0, 2.0, 0.0)),
        ([3.0, 0.0, 0.0], Difference(0.6, 0.8, 0.5)),
        ([0.0, 0.0, 0.0], Difference(None, 1.0, 1.0)),
        ([3.0, math.inf, 0.0], Difference(None, None, None)),
        ([3.0, math.nan, 0.0], Difference(None, None, None)),
    ],
)
def test_difference(gradient: list[float], expected: Difference) -> None:
    found = difference(torch.tensor([3.0, 4.0, 0.0]), torch.tensor(gradient))
    assert (found.cosine, found.error) == pytest.approx((expected.cosine, expected.error))
    assert found.flushed == expected.flushed


def test_difference_from_zero() -> None:
    assert difference(torch.zeros(2), torch.ones(2)) == Difference(None, None, 0.0)


@pytest.mark.parametrize(("limit", "expected"), [(-25, None), (-24, -24), (0, 0), (39, 39), (50, 39)])
def test_largest_exponent(limit: int, expected: int | None) -> None:
    tried: list[int] = []

    def is_finite(exponent: int) -> bool:
        tried.append(exponent)
        return exponent <= limit

    assert largest_exponent(is_finite, -24, 39) == expected
    assert len(tried) == (1 if expected is None else 7)


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        ({"x": torch.zeros(8, 3), "y": [torch.zeros(8)]}, 8),
        (torch.zeros(8), 8),
        ((torch.zeros(8), torch.zeros(7)), None),
        ((torch.zeros(8), torch.tensor(3)), None),
        ((torch.zeros(8), ["text"] * 8), None),
        ((torch.zeros(8), 3), None),
        ([], None),
    ],
)
def test_rows_that_all_tensors_have(batch: Any, rows: int | None) -> None:
    assert numerics_step.common_rows(batch) == rows


def test_nudged_weights_are_neighbours() -> None:
    module = nn.Linear(16, 16)
    before = module.weight.detach().clone()
    numerics_step.nudge(module)
    up, down = (torch.nextafter(before, torch.tensor(towards)) for towards in (torch.inf, -torch.inf))
    assert bool(((module.weight == up) | (module.weight == down)).all())
    assert 0 < int((module.weight == up).sum()) < 256


@pytest.mark.parametrize("module", [numerics, numerics_step])
def test_examples(module: ModuleType) -> None:
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dropout_draws_the_same_mask_in_half_precision_on_a_cuda_device(dtype: torch.dtype) -> None:
    """Otherwise the error of a gradient with Dropout is not that of the precision, and docs/numerics.md must say so."""
    masks = []
    for each in (torch.float32, dtype):
        torch.manual_seed(0)
        masks.append(torch.nn.functional.dropout(torch.ones(1000, 100, device="cuda", dtype=each)) == 0)
    assert torch.equal(*masks)
