"""How fast a trained module is at inference, by number format, and the metric that it keeps.

`measure_inference` trains by the options of a fit, and measures what it trained. `measure_ways` measures any
LightningModule whose fit has ended:

    kept = TrainingInputs(CALIBRATION_INPUTS)
    trainer = Trainer(max_epochs=5, callbacks=[kept])
    trainer.fit(LitClassifier(), ClassificationDataModule())
    results = measure_ways(trainer, kept, seconds=1.0, trained=True, metric="val_accuracy")
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from mnist_amp.errors import RunError
from mnist_amp.measuring.fit_measurements import ONE_BATCH
from mnist_amp.measuring.inference_inputs import (
    TrainingInputs,
    ValidationBatch,
    find_inputs,
    short_error,
)
from mnist_amp.measuring.inference_metrics import Accuracies, TimeLimit, Validation
from mnist_amp.measuring.inference_records import ACCURACY, BASELINE, INT8, InferenceResult
from mnist_amp.measuring.inference_timing import device_clock, largest_batch, time_ways
from mnist_amp.measuring.inference_ways import TorchWay, Way, restored, torch_ways
from mnist_amp.measuring.int8_inference import OnnxWay, check_classifier, onnx_ways
from mnist_amp.measuring.measured_fit import MeasuredFit
from mnist_amp.onnx_quantization import CALIBRATION_INPUTS

BATCH_SIZES = {"cuda": 4096, "cpu": 256}
# of a validation, as a multiple of that in float32: a CPU may need minutes for convolutions in float16
LIMIT_FACTOR, LEAST_LIMIT = 10.0, 20.0  # seconds
Results = dict[str, InferenceResult]  # by way


def measure_inference(
    config: dict[str, Any], overrides: dict[str, Any], seconds: float, trained: bool, metric: str | None
) -> list[InferenceResult]:
    """Run a fit, and measure inference with the module that it has trained.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        seconds: how long to time each way, once with one input and once with many.
        trained: whether to run the complete fit, and measure the metric; otherwise the fit is one batch.
        metric: of the validation, as the module logs it.

    Returns:
        A result for each way of inference, float32 first; only that, with the reason, if `forward` can't be called.
    """
    kept = TrainingInputs(CALIBRATION_INPUTS)
    fit = MeasuredFit(config, overrides, [kept], **({} if trained else ONE_BATCH))
    return measure_ways(fit.trainer, kept, seconds=seconds, trained=trained, metric=metric)


def measure_ways(
    trainer: Trainer, kept: TrainingInputs, *, seconds: float, trained: bool, metric: str | None
) -> list[InferenceResult]:
    """Measure inference with the module of a Trainer whose fit has ended; see `measure_inference`.

    The weights and the mode of the module are restored, and so are torch's settings. Gradients are lost.

    Args:
        trainer: has run a fit with `kept` among its callbacks.
        kept: inputs of the training.
        seconds: how long to time each way, once with one input and once with many.
        trained: whether to measure the metric.
        metric: of the validation, as the module logs it.
    """
    module = trainer.lightning_module
    module.zero_grad(set_to_none=True)
    with restored(module), tempfile.TemporaryDirectory() as folder:
        module.to(trainer.strategy.root_device)
        ways = torch_ways(module)
        started = time.monotonic()
        batch, value = _validate_float32(trainer, ways[0], metric if trained else None)
        limit = max(LEAST_LIMIT, LIMIT_FACTOR * (time.monotonic() - started))
        try:
            inputs = find_inputs(module, kept.batch if batch is None else batch)
        except RunError as error:
            return [InferenceResult(BASELINE, error=str(error))]
        onnx, failed = _onnx_ways(module, batch, inputs, kept, Path(folder))
        results = _time([*ways, *onnx], inputs, seconds, trainer.strategy.root_device)
        if value is not None and metric is not None:
            results = _with_metric(results, ways, Validation(trainer, trainer.limit_val_batches), metric, value, limit)
        if onnx and trained and batch is not None:
            results = _with_accuracy(results, ways[0], onnx, Validation(trainer, trainer.limit_val_batches))
    return [*results.values(), *failed]


def _validate_float32(trainer: Trainer, way: TorchWay, metric: str | None) -> tuple[Any, float | None]:
    """Return the first validation batch and the metric; None where there is none. The way is prepared afterwards."""
    first, metrics = ValidationBatch(), {}
    if trainer.enable_validation:
        metrics = Validation(trainer, 1 if metric is None else trainer.limit_val_batches).run(way, first)
    way.prepare()
    return first.batch, None if metric is None else metrics.get(metric)


def _onnx_ways(
    module: LightningModule, batch: Any, inputs: Any, kept: TrainingInputs, folder: Path
) -> tuple[list[OnnxWay], list[InferenceResult]]:
    """Return the ways of onnxruntime, or a result with the reason why there are none; nothing if not on a CPU."""
    if module.device.type != "cpu":
        return [], []
    try:
        check_classifier(module, kept.batch if batch is None else batch, inputs)
        return onnx_ways(module, kept.inputs, folder), []
    except RunError as error:
        return [], [InferenceResult(INT8, error=str(error))]
    except Exception as error:  # of torch's exporter or of onnxruntime, which have no common class
        return [], [InferenceResult(INT8, error=f"the module can't be exported to ONNX in int8: {short_error(error)}")]


def _time(ways: Sequence[Way], inputs: Any, seconds: float, device: torch.device) -> Results:
    """Time all ways with one input and with many."""
    clock = device_clock(device)
    _, errors = largest_batch(ways, inputs, 1)
    usable = [way for way in ways if way.name not in errors]
    single = time_ways(usable, inputs, 1, seconds, clock)
    size, bulk_errors = largest_batch(usable, inputs, BATCH_SIZES.get(device.type, BATCH_SIZES["cpu"]))
    bulk = time_ways([way for way in usable if way.name not in bulk_errors], inputs, size, seconds, clock)
    return {
        way.name: InferenceResult(
            way.name,
            single=single.get(way.name),
            bulk=bulk.get(way.name),
            file_bytes=way.file_bytes if isinstance(way, OnnxWay) else None,
            error=errors.get(way.name),
            note=f"with {size:,} inputs: {bulk_errors[way.name]}" if way.name in bulk_errors else None,
        )
        for way in ways
    }


def _with_metric(
    results: Results, ways: Sequence[TorchWay], validation: Validation, metric: str, baseline: float, limit: float
) -> Results:
    """Add the metric of each way of torch that runs, by a validation; `baseline` is that of float32."""
    found = dict(results)
    for way in ways:
        result = results[way.name]
        if result.error is not None:
            continue
        try:
            value = baseline if way.name == BASELINE else validation.run(way, TimeLimit(limit))[metric]
        except Exception as error:  # of the module
            reason = str(error) if isinstance(error, RunError) else short_error(error)
            note = f"{metric} is not measured: {reason}"
            found[way.name] = replace(result, note=note if result.note is None else f"{result.note}; {note}")
        else:
            found[way.name] = replace(result, metric=value, baseline_metric=baseline, metric_name=metric)
    return found


def _with_accuracy(results: Results, float32: TorchWay, onnx: Sequence[OnnxWay], validation: Validation) -> Results:
    """Add the accuracy of the ways of onnxruntime, and that of float32 on the same inputs."""
    accuracies = Accuracies({BASELINE: float32.module, **{way.name: way.logits for way in onnx}})
    validation.run(float32, accuracies)
    shares = accuracies.shares()
    added = {
        way.name: replace(
            results[way.name], metric=shares[way.name], baseline_metric=shares[BASELINE], metric_name=ACCURACY
        )
        for way in onnx
        if shares and results[way.name].error is None
    }
    return {**results, **added}
