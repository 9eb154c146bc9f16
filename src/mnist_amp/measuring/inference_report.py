"""The section of a report about inference: a table, and which way to use. No torch here."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from mnist_amp.measuring import verdict
from mnist_amp.measuring.compare_records import Metric
from mnist_amp.measuring.inference_records import ACCURACY, BASELINE, INT8, ONNX, InferenceResult, Timing
from mnist_amp.reporting.document import Block, Bullets, Heading, Table, Text

LOST_SHARE, LOST_OTHER = 0.005, 0.01  # from which on a way loses: of an accuracy 0.5 points, of another metric 1 %
Mode = Literal["min", "max"]
Measured = tuple[InferenceResult, list[float]]  # a way, and its speeds against the baseline


def sections(results: Sequence[InferenceResult], mode: Mode = "max") -> list[Block]:
    """Return the section about inference: its heading, a table and the verdict.

    Args:
        results: as `measure_inference` returns them, the baseline first.
        mode: whether a small value of the module's metric is better (min), or a large one (max).
    """
    found = [Text(sentence) for sentence in sentences(results, mode)]
    if len(results) == 1 and results[0].error is not None:
        return [Heading("Inference"), *found]
    table = Table(inference_table(results, mode), "All ways of inference")
    return [Heading("Inference"), table, Bullets(found)]


def inference_table(results: Sequence[InferenceResult], mode: Mode = "max") -> list[list[str]]:
    """Return the cells of the table, the head first; see `sections`.

    The columns of speed are multiples of the baseline's: for one input at a time, and for many.
    """
    baseline, size = results[0], next((result.bulk.batch_size for result in results if result.bulk), None)
    many = f"batch of {size:,}" if size else "batch"
    head = [
        "way",
        "latency, ms",
        "p90, ms",
        f"inputs/s, {many}",
        "speed, one input",
        f"speed, {many}",
        "metric",
        "note",
    ]
    return [head, *(_cells(result, baseline, mode) for result in results)]


def _cells(result: InferenceResult, baseline: InferenceResult, mode: Mode) -> list[str]:
    one, many = result.single, result.bulk
    return [
        result.way,
        f"{1e3 * statistics.median(one.seconds):.3g}" if one else "-",
        f"{1e3 * one.p90:.3g}" if one else "-",
        f"{many.batch_size / statistics.median(many.seconds):,.0f}" if many else "-",
        _ratio(_speeds(one, baseline.single)),
        _ratio(_speeds(many, baseline.bulk)),
        _metric_text(result, result.metric, mode),
        "; ".join(filter(None, [_size(result), result.note, f"failed: {result.error}" if result.error else None])),
    ]


def _ratio(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):.2f}" if speeds else "-"


def _speeds(timing: Timing | None, baseline: Timing | None) -> list[float]:
    """Return how many times as fast as the baseline, in each round that both have."""
    if timing is None or baseline is None:
        return []
    return [before / after for before, after in zip(baseline.seconds, timing.seconds, strict=False)]


def _size(result: InferenceResult) -> str | None:
    return None if result.file_bytes is None else f"{result.file_bytes / 1e6:,.2f} MB"


def _metric_text(result: InferenceResult, value: float | None, mode: Mode) -> str:
    return "-" if value is None else f"{result.metric_name} {_value_text(result, value, mode)}"


def _value_text(result: InferenceResult, value: float | None, mode: Mode) -> str:
    return "-" if value is None or result.metric_name is None else Metric(result.metric_name, mode).text(value)


def sentences(results: Sequence[InferenceResult], mode: Mode = "max") -> list[str]:
    """Return the verdict: which way to use for one input at a time, which for many, and what int8 does; see `sections`.

    A way is advised if it is faster than the baseline beyond noise and keeps the metric: if it loses at most 0.5
    percentage points of an accuracy, or 1 % of another metric.
    """
    if len(results) == 1 and results[0].error is not None:
        return [f"Inference is not measured: {results[0].error}."]
    one = [(result, _speeds(result.single, results[0].single)) for result in results]
    many = [(result, _speeds(result.bulk, results[0].bulk)) for result in results]
    size = next((result.bulk.batch_size for result in results if result.bulk), None)
    return [
        _advice("one input at a time", one, mode),
        *([_advice(f"{size:,} inputs at a time", many, mode)] if size else []),
        *_losses(results, mode),
        *_int8(results),
    ]


def _advice(amount: str, measured: list[Measured], mode: Mode) -> str:
    """Return which way to use for an amount of inputs, and which one without onnxruntime."""
    if not measured[0][1]:
        return f"For {amount}: {BASELINE} failed, so no way can be compared with it."
    faster = [(result, speeds) for result, speeds in measured if speeds and verdict.classify(speeds) == "faster"]
    kept = sorted((pair for pair in faster if not loses(pair[0], mode)), key=lambda pair: -statistics.median(pair[1]))
    if not kept:
        keeps = " and keeps the metric" if faster else ""
        return f"For {amount}, use {BASELINE}: no other way is faster beyond noise{keeps}."
    if kept[0][0].metric is None:
        text = f"For {amount}, {kept[0][0].way} is the fastest way: it is {_described(*kept[0], mode)}"
        return f"{text}. Its metric was not measured, so compare it before you use it."
    text = f"For {amount}, use {kept[0][0].way}: it is {_described(*kept[0], mode)}."
    if _is_torch(kept[0][0]):
        return text
    by_torch = [
        f"{result.way}: it is {_described(result, speeds, mode)}" for result, speeds in kept if _is_torch(result)
    ]
    return f"{text} Without onnxruntime, use {by_torch[0] if by_torch else BASELINE}."


def _is_torch(result: InferenceResult) -> bool:
    return result.way not in (ONNX, INT8)


def _described(result: InferenceResult, speeds: list[float], mode: Mode) -> str:
    """Describe the speed of a way, and the metric that it keeps."""
    text = verdict.describe(speeds, BASELINE)
    return text if result.metric is None else f"{text}, with {_kept(result, mode)}"


def _kept(result: InferenceResult, mode: Mode) -> str:
    """Return the metric of a way, and that of float32."""
    return f"{_metric_text(result, result.metric, mode)} (float32: {_value_text(result, result.baseline_metric, mode)})"


def _losses(results: Sequence[InferenceResult], mode: Mode) -> list[str]:
    return [
        f"{result.way} loses too much to be advised: {_kept(result, mode)}."
        for result in results
        if loses(result, mode)
    ]


def loses(result: InferenceResult, mode: Mode = "max") -> bool:
    """Whether a way loses too much of the metric; False if it was not measured.

    >>> kept = {"metric": 0.90, "baseline_metric": 0.92, "metric_name": "val_accuracy"}
    >>> loses(InferenceResult("16-true", **kept))
    True
    """
    if result.metric is None or result.baseline_metric is None or result.metric_name is None:
        return False
    metric = Metric(result.metric_name, "max" if result.metric_name == ACCURACY else mode)
    most = LOST_SHARE if metric.is_share else LOST_OTHER * abs(result.baseline_metric)
    if math.isnan(result.metric):
        return True
    return metric.is_worse(result.metric, result.baseline_metric) and abs(result.metric - result.baseline_metric) > most


def _int8(results: Sequence[InferenceResult]) -> list[str]:
    """Return what int8 itself does in onnxruntime, and the size of its file."""
    by_way = {result.way: result for result in results}
    if ONNX not in by_way or INT8 not in by_way:
        return []
    floats, integers = by_way[ONNX], by_way[INT8]
    speeds = [_speeds(integers.single, floats.single), _speeds(integers.bulk, floats.bulk)]
    texts = [
        f"{statistics.median(found):.2f} for {amount}"
        for found, amount in zip(speeds, ("one input", "many inputs"), strict=True)
        if found
    ]
    sizes = f"its file has {_size(integers)} instead of {_size(floats)}"
    return [f"In onnxruntime, the speed of int8 against float32 is {' and '.join(texts)}; {sizes}."] if texts else []
