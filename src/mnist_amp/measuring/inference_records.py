"""The records of inference: how fast a trained network is in each way, and the metric that it keeps. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

BASELINE = "32-true"  # the way that the others are compared with
ONNX, INT8 = "onnxruntime float32", "onnxruntime int8"
ACCURACY = "accuracy"  # the metric of these two: the share of the validation inputs that are classified correctly


@dataclass(frozen=True)
class Timing:
    """Repeated calls of `forward` with inputs of one size.

    Attributes:
        batch_size: number of inputs of a call.
        seconds: median time of a call in each round. The ways take turns, so two ways can be compared by round. A slow
            way has fewer rounds.
        p90: the time that nine tenths of all calls do not exceed.
        calls: number of calls that were timed.
    """

    batch_size: int
    seconds: list[float]
    p90: float
    calls: int


@dataclass(frozen=True)
class InferenceResult:
    """Inference in one way.

    Attributes:
        way: a precision of Lightning, `tf32`, `ONNX` or `INT8`.
        single: calls with one input; None if the way failed.
        bulk: calls with many inputs; None if they failed.
        metric: that the way keeps; None if it was not measured.
        baseline_metric: the same metric in float32, measured in the same manner; None if it was not measured.
        metric_name: as the module logs it, or `ACCURACY`; None without a metric.
        file_bytes: size of the ONNX file; None for a way of torch.
        error: why the way can't be measured; None if it can.
        note: why a part of the measurements is missing; None if no part is.

    Examples:
        >>> result = InferenceResult("bf16-true", error="RuntimeError: not implemented for 'BFloat16'")
        >>> InferenceResult.from_json(result.to_json()) == result
        True
    """

    way: str
    single: Timing | None = None
    bulk: Timing | None = None
    metric: float | None = None
    baseline_metric: float | None = None
    metric_name: str | None = None
    file_bytes: int | None = None
    error: str | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without fields that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` has returned.

        Raises:
            TypeError: a field is missing or unknown.
        """
        timings = {name: Timing(**values[name]) for name in ("single", "bulk") if name in values}
        return cls(**{**values, **timings})
