"""The records of `mnist-amp profile`, and the one place that reads and writes its `results.json`; no torch here."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mnist_amp.errors import RequestError
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.runs.atomic_files import atomic_write

SCHEMA = 2  # version of results.json


@dataclass(frozen=True)
class Spread:
    """Times of steps, or of a part of them.

    Attributes:
        mean: seconds per step.
        median: seconds per step.
        p10: 10th percentile in seconds.
        p90: 90th percentile in seconds.
        nanoseconds: sum over all steps.
        share: of the time of all steps, 0 to 1.
    """

    mean: float
    median: float
    p10: float
    p90: float
    nanoseconds: int
    share: float


@dataclass(frozen=True)
class StepTimes:
    """Times of optimizer steps.

    Attributes:
        step: steps whose parts are marked.
        unmarked_step: steps without marks.
        marks_cost: ratio of their medians.
        parts: by name, in the order of a step; their shares add up to 1.
    """

    step: Spread
    unmarked_step: Spread
    marks_cost: float
    parts: dict[str, Spread]


@dataclass(frozen=True)
class Layer:
    """A layer that ran, with the types of its tensors: `float32`, several with commas between them, or empty.

    Attributes:
        layer: its name in the module.
        kind: name of its class.
        weight: types of its parameters.
        input: types of the tensors that it was given.
        output: types of the tensors that it returned.
    """

    layer: str
    kind: str
    weight: str
    input: str
    output: str


@dataclass(frozen=True)
class Operation:
    """An ATen operation in a part of a step.

    Attributes:
        part: of the step, see `StepTimes`.
        name: of the operation, without `aten::`.
        inputs: types of the tensors that it was given, with commas between them.
        output: types of the tensors that it returned.
        count: how often it ran in one optimizer step.
    """

    part: str
    name: str
    inputs: str
    output: str
    count: int


@dataclass(frozen=True)
class Kernel:
    """A CUDA kernel.

    Attributes:
        kernel: its name.
        share: of the time of all kernels, 0 to 1.
        tensor_cores: whether it used tensor cores, by its name.
    """

    kernel: str
    share: float
    tensor_cores: bool


@dataclass(frozen=True)
class GradientSizes:
    """The magnitude of gradient values, unscaled, over some optimizer steps.

    Attributes:
        steps: optimizer steps that were applied.
        exponents: number of values from 2^e to 2^(e+1), by e.
        zeros: number of values that are zero.
        flushed_by_fp16: share of the other values that fp16 rounds to zero, 0 to 1.
        subnormal_in_fp16: share of the other values that fp16 holds with fewer bits, 0 to 1.
    """

    steps: int
    exponents: dict[int, int]
    zeros: int
    flushed_by_fp16: float
    subnormal_in_fp16: float


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of memory by what they hold, see `memory.MemoryMeter`.

    Attributes:
        weights: of the module's parameters.
        gradients: of the parameters.
        optimizer: of the optimizers' state.
        batch: of a step's batch.
        activations: tensors that the forward pass keeps for the backward pass, except weights and the batch.
        peak: the most that was allocated on a CUDA device; None on a CPU, where torch does not count.
        data: the part of the peak that holds the data set; None if that is not known.
    """

    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    peak: int | None
    data: int | None

    @property
    def total(self) -> int:
        """Return the peak if it is known, else the sum of the parts."""
        return self.peak or self.weights + self.gradients + self.optimizer + self.batch + self.activations


@dataclass(frozen=True)
class Profile:
    """What was measured of the training steps of a fit.

    Attributes:
        precision: the precision in effect.
        optimizer: names of the classes of the optimizers, with commas between them.
        fused: whether all optimizers are fused.
        steps: number of steps that were timed with marks, and again without.
        warmup: number of steps before those.
        times: of the steps and their parts.
        work: share of the step's time by what it is spent on, 0 to 1, see `step_work.shares`.
        flops: floating-point operations of an optimizer step, in matrix products and convolutions; 0 if unknown.
        peak_flops: of the device in this precision, operations a second, see `step_work.peak_flops`.
        memory: used by training.
        non_finite: the first layer whose output is not finite; None if all are.
        gradients: their magnitude.
        layers: with the types of their tensors.
        operations: of one optimizer step.
        kernels: longest first; None without a CUDA device.
    """

    precision: str
    optimizer: str
    fused: bool
    steps: int
    warmup: int
    times: StepTimes
    work: dict[str, float]
    flops: int
    peak_flops: float
    memory: MemoryUse
    non_finite: str | None
    gradients: GradientSizes
    layers: list[Layer]
    operations: list[Operation]
    kernels: list[Kernel] | None

    @property
    def flops_per_second(self) -> float:
        """Return the floating-point operations that a step without marks does in a second."""
        return self.flops / self.times.unmarked_step.median

    @property
    def peak_share(self) -> float:
        """Return the part of the device's peak that this is, 0 to 1."""
        return self.flops_per_second / self.peak_flops if self.peak_flops else 0.0

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        times = values.pop("times")
        times["parts"] = [{"part": name, **spread} for name, spread in times["parts"].items()]
        return {**values, **times}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        kernels, gradients = values["kernels"], values["gradients"]
        parts = {row["part"]: Spread(**{key: row[key] for key in row if key != "part"}) for row in values["parts"]}
        exponents = {int(exponent): count for exponent, count in gradients["exponents"].items()}
        plain = ("precision", "optimizer", "fused", "steps", "warmup", "work", "flops", "peak_flops", "non_finite")
        return cls(
            **{name: values[name] for name in plain},
            memory=MemoryUse(**values["memory"]),
            times=StepTimes(Spread(**values["step"]), Spread(**values["unmarked_step"]), values["marks_cost"], parts),
            gradients=GradientSizes(**{**gradients, "exponents": exponents}),
            layers=[Layer(**row) for row in values["layers"]],
            operations=[Operation(**row) for row in values["operations"]],
            kernels=None if kernels is None else [Kernel(**row) for row in kernels],
        )


@dataclass(frozen=True)
class ProfileResults:
    """The content of `results.json`.

    Attributes:
        command: the command line.
        date: ISO 8601, with the time.
        device: name of the device.
        versions: version by package.
        requested_precision: None if a plugin determines it.
        profile: what was measured.
        numerics: of a step in half precision against float32; None if they could not be measured.
        settings: of the fit, as plain values.
    """

    command: str
    date: str
    device: str
    versions: dict[str, str]
    requested_precision: str | None
    profile: Profile
    numerics: Numerics | None
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        names = ("command", "date", "device", "versions", "requested_precision")
        values = {name: getattr(self, name) for name in names}
        numerics = None if self.numerics is None else self.numerics.to_json()
        own = {"numerics": numerics, "settings": self.settings}
        return {"schema": SCHEMA, **values, **self.profile.to_json(), **own}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        names = ("command", "date", "device", "versions", "requested_precision", "settings")
        return cls(
            profile=Profile.from_json(values),
            numerics=None if values["numerics"] is None else Numerics.from_json(values["numerics"]),
            **{name: values[name] for name in names},
        )

    def save(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` has written.

        Raises:
            OSError: the file can't be read.
            FormerProfileError: it is the profile of another version.
            NotAProfileError: it is something else.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema = values.get("schema", 1)
            if "gradients" in values and schema != SCHEMA:
                raise FormerProfileError(path, schema)
            return cls.from_json(values)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise NotAProfileError(f"{path} is not the results.json of a profile.") from error


class NotAProfileError(RequestError):
    """The file is something else than the results of a profile."""


class FormerProfileError(NotAProfileError):
    """The file is the profile of another version.

    Args:
        path: of the file.
        schema: the version of its schema.
    """

    def __init__(self, path: Path, schema: object) -> None:
        super().__init__(
            f"{path} has schema {schema}, and this version of mnist-amp reads schema {SCHEMA}; "
            "measure again with mnist-amp profile."
        )
