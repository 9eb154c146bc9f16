"""The records of the numerics of a training step, and the layers at risk in them; no torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

FP16_LARGEST = 65504.0
MARGIN = 4.0  # an activation within this factor of fp16's largest number may overflow on another batch
# A gradient that changes by this share of its norm when each weight moves to a neighbouring float32 consists of
# rounding errors, such as that of a convolution's bias before a batch normalization: the true one is zero.
ZERO_NOISE = 0.25
# The error of a parameter is only considered if its gradient has this share of the norm of the largest one.
NEGLIGIBLE = 1e-6
# With a larger error, the cosine is under 0.9 or so. The gradients of a ResNet-18 in bfloat16, which trains as in
# float32, have an error of 0.35 at initialisation and of 0.2 after some steps.
LARGE_ERROR = 0.5
# Weights with a zero gradient do not learn. In a ResNet-18 the share is below 0.00001 with the default loss scale.
LARGE_FLUSHED = 0.01

Kind = Literal["overflow", "near overflow", "underflow", "rounding"]


@dataclass(frozen=True)
class Difference:
    """How the gradient of a parameter differs from that of float32.

    Attributes:
        cosine: of the angle between them, -1 to 1; None if one of them is zero or not finite.
        error: norm of the difference, as a multiple of the norm in float32; None if this is zero, or not finite.
        flushed: share of the values that are zero, of those that are not zero in float32, 0 to 1; None if not finite.
    """

    cosine: float | None
    error: float | None
    flushed: float | None


@dataclass(frozen=True)
class ParameterNumerics:
    """The gradient of a parameter in float32.

    Attributes:
        name: as `named_parameters()` has it.
        norm: of the gradient.
        noise: its relative error when each weight moves to a neighbouring float32; None for a zero gradient.
    """

    name: str
    norm: float
    noise: float | None

    @property
    def layer(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def is_zero(self) -> bool:
        """Whether the gradient is zero, or nothing but rounding errors."""
        return self.norm == 0 or self.noise is None or self.noise >= ZERO_NOISE


@dataclass(frozen=True)
class LayerNumerics:
    """The activations of a layer: a module that runs, and in which no other module runs.

    Attributes:
        layer: its name; empty for the LightningModule itself.
        kind: name of its class.
        largest_input: magnitude of the largest finite value in float32.
        largest: the same of its output.
        types: of its output, by precision.
        overflows: precisions in which it makes a non-finite output of finite inputs, unlike in float32.
    """

    layer: str
    kind: str
    largest_input: float
    largest: float
    types: dict[str, str]
    overflows: list[str]


@dataclass(frozen=True)
class Scaling:
    """The effect of the loss scale, by real steps from the same weights on the same batch.

    Attributes:
        first: the loss scale with which a fit begins.
        used: the loss scale of the gradients that are compared; None if they overflow with each.
        largest: the largest power of two at which no gradient overflows; None if they overflow with each.
        is_limit: whether no larger one was tried.
        unscaled: share of the values that are zero with a loss scale of 1, of those that are not zero in float32, by
            parameter. Empty if they overflow.
        at_largest: the same with the largest loss scale.
    """

    first: float
    used: float | None
    largest: float | None
    is_limit: bool
    unscaled: dict[str, float]
    at_largest: dict[str, float]


@dataclass(frozen=True)
class Remedy:
    """Layers that were run in float32 against an overflow.

    If that works, the gradients of this precision are compared with these layers in float32.

    Attributes:
        layers: their names.
        works: whether all gradients were finite then.
    """

    layers: list[str]
    works: bool


@dataclass(frozen=True)
class PrecisionNumerics:
    """A training step in a precision, against float32.

    Attributes:
        name: of the precision.
        effective: Lightning's name of the precision in effect; empty if the step failed.
        differences: by parameter.
        scaling: None without a gradient scaler.
        remedy: None if nothing overflows in the forward pass.
        error: why the step failed; None if it did not.
        failed_layer: the layer that ran then; None if unknown.
    """

    name: str
    effective: str = ""
    differences: dict[str, Difference] = field(default_factory=dict)
    scaling: Scaling | None = None
    remedy: Remedy | None = None
    error: str | None = None
    failed_layer: str | None = None

    @property
    def is_fp16(self) -> bool:
        return self.effective.startswith("16-")


@dataclass(frozen=True)
class Risk:
    """A layer with a risk in a precision.

    Attributes:
        kind: an activation is not finite in fp16 (overflow) or nearly so, gradients are zero (underflow), or rounding
            errors are a large part of a gradient.
        layer: its name.
        precision: name of the precision; `fp16` for what follows from the float32 step alone.
        value: the largest activation, the share of zeros, or the relative error.
    """

    kind: Kind
    layer: str
    precision: str
    value: float


@dataclass(frozen=True)
class Numerics:
    """A training step in float32 and in other precisions, from the same weights on the same batch.

    Attributes:
        device: name of the device.
        warmup: steps in float32 before it.
        rows: of the batch that were used; None if the tensors of the batch have no common first dimension.
        batch_rows: of the complete batch.
        parameters: those with a gradient.
        layers: in the order in which they ended first.
        precisions: without float32, unless it was measured against itself.
    """

    device: str
    warmup: int
    rows: int | None
    batch_rows: int | None
    parameters: list[ParameterNumerics]
    layers: list[LayerNumerics]
    precisions: list[PrecisionNumerics]

    def risks(self) -> list[Risk]:
        """Return the layers at risk, each once for a kind and a precision, with the worst value."""
        found = [*self._overflows(), *(risk for each in self.precisions for risk in self._gradient_risks(each))]
        worst: dict[tuple[Kind, str, str], Risk] = {}
        for risk in found:
            key = (risk.kind, risk.layer, risk.precision)
            if key not in worst or risk.value > worst[key].value:
                worst[key] = risk
        return list(worst.values())

    def _overflows(self) -> list[Risk]:
        fp16 = [each.name for each in self.precisions if each.is_fp16]
        found = []
        for layer in self.layers:
            found += [Risk("overflow", layer.layer, name, layer.largest) for name in layer.overflows]
            if layer.overflows or layer.largest * MARGIN < FP16_LARGEST or layer.largest <= layer.largest_input:
                continue  # a layer such as a ReLU hands on what another one made
            measured = [name for name in fp16 if name in layer.types]
            if not measured:  # the step in fp16 is unknown
                kind: Kind = "near overflow" if layer.largest <= FP16_LARGEST else "overflow"
                found.append(Risk(kind, layer.layer, "fp16", layer.largest))
            elif layer.largest <= FP16_LARGEST:  # a larger one is finite in fp16, so it does not depend on the network
                names = [name for name in measured if layer.types[name] == "float16"]
                found += [Risk("near overflow", layer.layer, name, layer.largest) for name in names]
        return found

    def _gradient_risks(self, precision: PrecisionNumerics) -> list[Risk]:
        least = NEGLIGIBLE * max((parameter.norm for parameter in self.parameters), default=0.0)
        found = []
        for parameter in self.parameters:
            difference = precision.differences.get(parameter.name)
            if difference is None or parameter.is_zero:
                continue
            # bfloat16 has the range of float32; its zeros come from activations that a ReLU cuts off, or does not
            if precision.is_fp16 and difference.flushed is not None and difference.flushed > LARGE_FLUSHED:
                found.append(Risk("underflow", parameter.layer, precision.name, difference.flushed))
            elif parameter.norm >= least and difference.error is not None and difference.error > LARGE_ERROR:
                found.append(Risk("rounding", parameter.layer, precision.name, difference.error))
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a record from what `to_json` returned."""
        return cls(
            **{
                **values,
                "parameters": [ParameterNumerics(**each) for each in values["parameters"]],
                "layers": [LayerNumerics(**each) for each in values["layers"]],
                "precisions": [_precision(each) for each in values["precisions"]],
            }
        )


def _precision(values: Mapping[str, Any]) -> PrecisionNumerics:
    parts = {
        "differences": {name: Difference(**each) for name, each in values["differences"].items()},
        "scaling": None if values["scaling"] is None else Scaling(**values["scaling"]),
        "remedy": None if values["remedy"] is None else Remedy(**values["remedy"]),
    }
    return PrecisionNumerics(**{**values, **parts})
