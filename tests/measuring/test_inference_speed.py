"""Inference with modules of another project, and with SimpleNN. No test depends on a time."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_amp.errors import RunError
from mnist_amp.measuring import inference_speed, int8_inference
from mnist_amp.measuring.inference_inputs import (
    Keywords,
    TrainingInputs,
    ValidationBatch,
    call_forward,
    find_inputs,
    labels_of,
    resized,
)
from mnist_amp.measuring.inference_metrics import TimeLimit, Validation
from mnist_amp.measuring.inference_records import INT8, ONNX, InferenceResult
from mnist_amp.measuring.inference_speed import measure_inference, measure_ways
from mnist_amp.measuring.inference_ways import TorchWay, Weights, restored, torch_ways
from mnist_amp.measuring.int8_inference import onnx_ways
from mnist_amp.onnx_quantization import PACKAGES
from tests.measuring.fits import tiny

TORCH_WAYS = ["32-true", "bf16-mixed", "bf16-true", "16-true"]
NOT_A_CLASSIFIER = (
    "int8 is measured for classifiers only: forward returns logits (N, classes) for a tensor, and a batch has integer "
    "labels (N,)"
)
needs_onnx = pytest.mark.skipif(
    any(find_spec(package) is None for package in PACKAGES), reason="needs the extra export"
)


def examples(size: int, seed: int) -> TensorDataset:
    """Return inputs (size, 6) of three classes that are easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    return TensorDataset(3 * F.one_hot(labels, 6) + torch.randn(size, 6, generator=generator), labels)


class Data(LightningDataModule):
    """Halves the inputs on the device, so that a batch differs from what the loader yields."""

    def train_dataloader(self) -> Any:
        return DataLoader(examples(60, 0), batch_size=20)

    def val_dataloader(self) -> Any:
        return DataLoader(examples(45, 1), batch_size=10)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] / 2, batch[1]]


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class LayerNorms(Classifier):
    """A module about which the quantization logs warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.LayerNorm(16)


class NoHalf(Classifier):
    """A module with an operation that has no kernel for half precision."""

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dtype in (torch.bfloat16, torch.float16):
            raise TypeError("forward takes float32")
        return super().forward(inputs)


class NoHalfValidation(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch[0].dtype == torch.float16:
            raise TypeError("validation_step takes no float16")
        super().validation_step(batch, batch_idx)


class NoForward(LightningModule):
    """A module that calls its network itself, and does not validate."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Regression(NoForward):
    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.net(inputs)
        return output[:, 0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self(batch[0]), batch[1].float())


def fitted(module: LightningModule, **options: Any) -> tuple[Trainer, TrainingInputs]:
    kept = TrainingInputs(30)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[kept],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, datamodule=Data())
    return trainer, kept


def measured(module: LightningModule, trained: bool = True) -> list[InferenceResult]:
    trainer, kept = fitted(module)
    return measure_ways(trainer, kept, seconds=0.01, trained=trained, metric="val_acc")


@needs_onnx
def test_a_classifier_is_measured_in_all_ways_and_left_unchanged() -> None:
    module = Classifier()
    trainer, kept = fitted(module)
    metric, weights = float(trainer.callback_metrics["val_acc"]), {k: v.clone() for k, v in module.state_dict().items()}
    module.train()
    results = measure_ways(trainer, kept, seconds=0.01, trained=True, metric="val_acc")
    assert [result.way for result in results] == [*TORCH_WAYS, ONNX, INT8]
    assert results[0].metric == metric
    assert [result.metric_name for result in results] == ["val_acc"] * 4 + ["accuracy"] * 2
    assert [result.baseline_metric for result in results] == [metric] * 4 + [pytest.approx(metric, abs=1e-6)] * 2
    for result in results:
        assert (result.error, result.note) == (None, None)
        assert result.single is not None
        assert result.bulk is not None
        assert (result.single.batch_size, result.bulk.batch_size) == (1, 256)
    assert {name: value.dtype for name, value in module.state_dict().items()} == {
        k: v.dtype for k, v in weights.items()
    }
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert (module.training, module.dtype, module.trainer) == (True, torch.float32, trainer)
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_the_inputs_are_those_that_steps_get_after_their_transfer() -> None:
    trainer, kept = fitted(Classifier())
    inputs, labels = examples(60, 0).tensors
    assert [len(batch) for batch in kept.inputs] == [20, 20]  # at least the 30 that are wanted
    assert torch.equal(torch.cat(kept.inputs), inputs[:40] / 2)
    assert torch.equal(kept.batch[1], labels[:20])
    first = ValidationBatch()
    Validation(trainer, 1).run(torch_ways(trainer.lightning_module)[0], first)
    assert torch.equal(first.batch[0], examples(45, 1).tensors[0][:10] / 2)


def test_a_module_that_is_hardly_trained_has_no_metric() -> None:
    results = measured(Classifier(), trained=False)
    assert [result.metric for result in results] == [None] * len(results)
    assert results[0].single is not None


@needs_onnx
def test_a_way_that_fails_is_left_out_with_its_error() -> None:
    results = {result.way: result for result in measured(NoHalf())}
    assert {way: result.error for way, result in results.items()} == {
        "32-true": None,
        "bf16-mixed": None,
        "bf16-true": "TypeError: forward takes float32",
        "16-true": "TypeError: forward takes float32",
        ONNX: None,
        INT8: None,
    }
    assert results["bf16-true"] == InferenceResult("bf16-true", error="TypeError: forward takes float32")


def test_a_validation_that_fails_leaves_the_times() -> None:
    results = {result.way: result for result in measured(NoHalfValidation())}
    assert {way: results[way].note for way in TORCH_WAYS} == {
        **dict.fromkeys(TORCH_WAYS[:3]),
        "16-true": "val_acc is not measured: TypeError: validation_step takes no float16",
    }
    assert results["16-true"].metric is None
    assert results["16-true"].single is not None


def test_a_module_without_forward_is_not_measured() -> None:
    assert measured(NoForward()) == [InferenceResult("32-true", error="the module has no forward")]


@needs_onnx
def test_int8_is_for_classifiers() -> None:
    results = measured(Regression())
    assert [result.way for result in results] == [*TORCH_WAYS, INT8]
    assert results[-1] == InferenceResult(INT8, error=NOT_A_CLASSIFIER)
    assert [result.metric for result in results] == [None] * 5


def test_int8_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_inference, "find_spec", lambda name: None)
    assert measured(Classifier())[-1] == InferenceResult(
        INT8, error="int8 needs onnx, onnxscript and onnxruntime. Install the extra: pip install 'mnist-amp[export]'"
    )


@needs_onnx
def test_int8_of_a_module_that_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise NotImplementedError("no ONNX operation\nfor this one")

    monkeypatch.setattr(int8_inference, "_export", fail)
    assert measured(Classifier())[-1].error == (
        "the module can't be exported to ONNX in int8: NotImplementedError: no ONNX operation"
    )


@needs_onnx
def test_export_and_quantization_print_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    module = LayerNorms().eval()
    capfd.readouterr()
    ways = onnx_ways(module, [torch.ones(4, 6)], tmp_path)
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (*capfd.readouterr(), logged, recwarn.list) == ("", "", [], [])
    inputs = torch.randn(7, 6)
    torch.testing.assert_close(ways[0].logits(inputs), module(inputs).detach(), rtol=1e-4, atol=1e-4)
    assert ways[1].logits(inputs[:1]).shape == (1, 3)
    assert [way.file_bytes for way in ways] == [
        (tmp_path / name).stat().st_size for name in ("float32.onnx", "int8.onnx")
    ]


@needs_onnx
def test_int8_of_simple_nn_keeps_its_accuracy_in_a_smaller_file(data_dir: Path) -> None:
    options = tiny(data_dir, **{"network.hidden_dim": 64, "trainer.max_epochs": 1, "trainer.limit_train_batches": 300})
    results = {result.way: result for result in measure_inference({}, options, 0.01, True, "val_accuracy")}
    floats, integers = results[ONNX], results[INT8]
    assert floats.file_bytes is not None
    assert integers.file_bytes is not None
    assert integers.file_bytes < floats.file_bytes / 2
    assert integers.metric is not None
    assert integers.baseline_metric == pytest.approx(results["32-true"].metric, abs=1e-6)
    assert abs(integers.metric - results["32-true"].metric) < 0.02  # type: ignore[operator]


@needs_onnx
def test_a_module_by_name_that_was_trained_in_bfloat16() -> None:
    named = {"model": f"{__name__}.Classifier", "data": f"{__name__}.Data", "trainer.precision": "bf16-true"}
    options = {"trainer.accelerator": "cpu", "trainer.max_epochs": 2}
    results = measure_inference({}, {**named, **options}, 0.01, True, "val_acc")
    assert [(result.way, result.error, result.note) for result in results] == [
        (way, None, None) for way in (*TORCH_WAYS, ONNX, INT8)
    ]
    assert [result.metric_name for result in results] == ["val_acc"] * 4 + ["accuracy"] * 2


def test_an_untrained_fit_is_one_batch(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def note(trainer: Trainer, kept: TrainingInputs, **options: Any) -> list[InferenceResult]:
        found.extend([trainer.global_step, sum(map(len, kept.inputs)), options])
        return []

    monkeypatch.setattr(inference_speed, "measure_ways", note)
    assert measure_inference({}, tiny(data_dir), 0.5, False, "val_accuracy") == []
    assert found == [1, 32, {"seconds": 0.5, "trained": False, "metric": "val_accuracy"}]


class Taking(LightningModule):
    """A module whose forward is a function of its inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.function(*args, **kwargs)


NAMED = {"ids": torch.ones(4, 2), "mask": torch.ones(4), "scale": torch.tensor(2.0)}


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda batch: batch["ids"] * batch["mask"][:, None], NAMED),
        (lambda ids, mask, scale: ids * mask[:, None] * scale, Keywords(NAMED)),
        (lambda inputs: inputs @ torch.ones(2), NAMED["ids"]),
    ],
)
def test_a_batch_with_names_is_given_as_forward_takes_it(function: Callable[..., Tensor], wanted: Any) -> None:
    module = Taking(function)
    inputs = find_inputs(module, NAMED)
    assert type(inputs) is type(wanted)
    assert inputs is wanted or inputs == wanted
    assert len(call_forward(module, resized(inputs, 7))) == 7


def test_the_reason_names_the_shape_that_forward_does_not_take() -> None:
    with pytest.raises(RunError) as caught:
        find_inputs(Taking(lambda a, b: a), [torch.ones(4, 2), torch.ones(4)])
    reason = "forward does not take the first tensor of a batch, (4, 2): TypeError: "
    assert str(caught.value).startswith(reason)
    with pytest.raises(RunError, match=r"^a batch has no tensor with inputs$"):
        find_inputs(Taking(lambda a: a), {"text": "words"})


def test_labels_are_found_by_name_or_by_shape() -> None:
    inputs, labels, indices = torch.ones(2, 3), torch.tensor([1, 0]), torch.tensor([8, 9])
    assert labels_of({"inputs": inputs, "indices": indices, "label": labels}) is labels
    assert labels_of([inputs, torch.ones(2), labels]) is labels
    assert labels_of([inputs, torch.ones(2)]) is None
    assert labels_of([inputs, torch.tensor([1, 0, 2])]) is None
    assert labels_of("words") is None


def test_weights_are_exchanged_without_a_copy() -> None:
    module = Classifier()
    before = {name: value.data_ptr() for name, value in module.state_dict().items()}
    first = Weights(module)
    module.to(torch.bfloat16)
    assert module.net.state_dict()["1.running_mean"].dtype == torch.bfloat16
    first.restore()
    assert {name: value.data_ptr() for name, value in module.state_dict().items()} == before


def test_the_ways_of_a_cuda_device_have_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "device", torch.device("cuda"))
    ways = torch_ways(Classifier())
    assert [way.name for way in ways] == ["32-true", "tf32", "bf16-mixed", "bf16-true", "16-true"]
    assert [(way.precision, way.matmul) for way in ways[:2]] == [("32-true", "highest"), ("32-true", "high")]


def test_a_validation_that_takes_too_long_ends() -> None:
    times = iter([0.0, 5.0, 6.0])
    limit, trainer, module = TimeLimit(5.0, lambda: next(times)), Trainer(logger=False), LightningModule()
    limit.on_validation_start(trainer, module)
    limit.on_validation_batch_end(trainer, module, None, None, 0)
    with pytest.raises(RunError, match=r"^a validation takes more than 5 s$"):
        limit.on_validation_batch_end(trainer, module, None, None, 1)


def test_tf32_is_used_by_its_own_way_alone() -> None:
    """Matrix products and convolutions have a setting each."""
    module = LightningModule()
    module.trainer = Trainer(logger=False)
    torch.backends.cudnn.allow_tf32 = True
    with restored(module):
        for name, matmul, convolutions in (("tf32", "high", True), ("32-true", "highest", False)):
            TorchWay(name, module, Weights(module)).prepare()
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (matmul, convolutions)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.cuda
def test_on_a_cuda_device() -> None:
    kept = TrainingInputs(30)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, accelerator="cuda", devices=1, callbacks=[kept], **options)
    trainer.fit(Classifier(), datamodule=Data())
    results = measure_ways(trainer, kept, seconds=0.01, trained=True, metric="val_acc")
    assert [result.way for result in results] == ["32-true", "tf32", "bf16-mixed", "bf16-true", "16-true"]
    assert [(result.error, result.note) for result in results] == [(None, None)] * 5
    assert [result.bulk.batch_size for result in results if result.bulk] == [4096] * 5
