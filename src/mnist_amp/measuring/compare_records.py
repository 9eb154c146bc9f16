"""The records of `mnist-amp compare`, and the one place that reads and writes its `results.json`; no torch here."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from mnist_amp.measuring.environment import Environment
from mnist_amp.measuring.inference_records import InferenceResult
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.measuring.profile_records import Profile
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.wording import described_class, listed

Kind = Literal["speed", "profile", "numerics", "score", "inference"]
SCHEMA = 2  # version of results.json
TRAIN_LOSS = "training loss"  # the metric of a module that logs none


@dataclass(frozen=True)
class Setting:
    """A point of a comparison: a value for each axis.

    Attributes:
        values: options of `fit`, each with a plain value.

    Examples:
        >>> setting = Setting.of({"network.hidden_dim": 128, "data.batch_size": 64})
        >>> str(setting)
        'hidden_dim 128 and batch_size 64'
        >>> str(setting.without("network.hidden_dim"))
        'batch_size 64'
    """

    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        return cls(tuple(values.items()))

    def as_dict(self) -> dict[str, Any]:
        return dict(self.values)

    def __getitem__(self, axis: str) -> Any:
        return self.as_dict()[axis]

    def __hash__(self) -> int:
        return hash(json.dumps(self.values))  # a value may be a list, or a class with its arguments

    def __str__(self) -> str:
        names = short_names(self.as_dict())
        return listed([f"{names[axis]} {value_text(value)}" for axis, value in self.values])

    def without(self, axis: str) -> "Setting":
        """Return the values of the other axes."""
        return Setting(tuple(pair for pair in self.values if pair[0] != axis))


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """Return the last part of each option's name, or the complete name if several options share the last part.

    >>> short_names(["network.width", "data.batch_size"])
    {'network.width': 'width', 'data.batch_size': 'batch_size'}
    >>> short_names(["network.dropout", "head.dropout"])
    {'network.dropout': 'network.dropout', 'head.dropout': 'head.dropout'}
    """
    last = {axis: axis.rpartition(".")[2] for axis in axes}
    return {axis: name if list(last.values()).count(name) == 1 else axis for axis, name in last.items()}


def batch_axis(axes: Iterable[str]) -> str | None:
    """Return the axis of the batch size, by its name; None if there is none."""
    return next((axis for axis in axes if axis.rpartition(".")[2] == "batch_size"), None)


def value_text(value: Any) -> str:
    """Return a plain value as it is written on the command line; a class with its arguments in brackets.

    >>> [value_text(value) for value in (64, 0.001, True, None, "Adam", [0.9, 0.99])]
    ['64', '0.001', 'true', 'null', 'Adam', '[0.9, 0.99]']
    """
    if isinstance(value, Mapping) and "class_path" in value:
        return described_class(value)
    return value if isinstance(value, str) else json.dumps(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Cell(NamedTuple):
    """One measurement that is planned.

    Attributes:
        kind: of measurement.
        precision: a key of `precisions.PRECISIONS`.
        setting: the value of each axis.
        number: of the round for `speed`; the seed for `score` and `inference`; 0 for the others.
    """

    kind: Kind
    precision: str
    setting: Setting
    number: int


@dataclass(frozen=True)
class Metric:
    """The metric of a comparison.

    Attributes:
        name: as the module logs it, or `TRAIN_LOSS`.
        mode: whether a small or a large value is better.
    """

    name: str
    mode: Literal["min", "max"]

    @property
    def is_share(self) -> bool:
        """Whether it is an accuracy, by its name."""
        return bool({"acc", "accuracy"} & set(re.split(r"[^a-z]+", self.name.lower())))

    def text(self, value: float) -> str:
        """Return a value as text.

        >>> Metric("val_accuracy", "max").text(0.9633), Metric("val_loss", "min").text(0.12345)
        ('96.33%', '0.1235')
        """
        return f"{value:.2%}" if self.is_share and 0 <= value <= 1 else f"{value:.4g}"

    def is_worse(self, value: float, other: float) -> bool:
        """Whether a value is worse than another one."""
        return value < other if self.mode == "max" else value > other


@dataclass(frozen=True)
class Speed:
    """A measured step.

    Attributes:
        effective: the precision in effect.
        seconds: mean time of a step, with the loop around it.
        steps: number of steps that were timed.
        waiting_seconds: time of a step in which the host waits for its batches.
        not_captured: why the steps did not run as CUDA graphs; None if they did, or if that was impossible.
        compiled: what torch.compile compiled; None if the fit does not compile.
        compile_seconds: the time that it took, which is in no other time; None if the fit does not compile.
    """

    effective: str
    seconds: float
    steps: int
    waiting_seconds: float
    not_captured: str | None = None
    compiled: str | None = None
    compile_seconds: float | None = None


@dataclass(frozen=True)
class Score:
    """The metric of a completed fit.

    Attributes:
        effective: the precision in effect.
        value: of the metric.
        steps: optimizer steps of the fit.
        curve: training loss as (step, loss), at most 100 points; empty if the module returns no loss.
        loss_scale: at the end; None without a GradScaler.
        skipped_steps: number of steps that the GradScaler skipped; None without a GradScaler.
    """

    effective: str
    value: float
    steps: int
    curve: list[tuple[float, float]]
    loss_scale: float | None = None
    skipped_steps: int | None = None


@dataclass(frozen=True)
class Inference:
    """Inference with the network that a fit in the baseline has trained.

    Attributes:
        results: for each way, float32 first.
    """

    results: list[InferenceResult]


@dataclass(frozen=True)
class Failure:
    """A measurement that failed, with the message of its error.

    Attributes:
        error: the message.
        out_of_memory: whether the memory was too small.
    """

    error: str
    out_of_memory: bool = False


Outcome = Speed | Profile | Numerics | Score | Inference | Failure
AnyOutcome = TypeVar("AnyOutcome", Speed, Profile, Numerics, Score, Inference, Failure)
# fields that are left out of results.json if they are None
OPTIONAL = ("not_captured", "compiled", "compile_seconds", "loss_scale", "skipped_steps")


@dataclass(frozen=True)
class Measurement:
    """A cell and its outcome."""

    cell: Cell
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        cell = {**self.cell._asdict(), "setting": self.cell.setting.as_dict()}
        if isinstance(self.outcome, Profile | Numerics):
            return {"cell": cell, **self.outcome.to_json()}
        if isinstance(self.outcome, Inference):
            return {"cell": cell, "results": [result.to_json() for result in self.outcome.results]}
        values = asdict(self.outcome)
        return {
            "cell": cell,
            **{key: value for key, value in values.items() if value is not None or key not in OPTIONAL},
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        cell = Cell(**{**row["cell"], "setting": Setting.of(row["cell"]["setting"])})
        values = {key: value for key, value in row.items() if key != "cell"}
        return cls(cell, _outcome(cell.kind, values))


def _outcome(kind: Kind, values: dict[str, Any]) -> Outcome:
    if "error" in values:
        return Failure(**values)
    if kind == "profile":
        return Profile.from_json(values)
    if kind == "numerics":
        return Numerics.from_json(values)
    if kind == "speed":
        return Speed(**values)
    if kind == "inference":
        return Inference([InferenceResult.from_json(result) for result in values["results"]])
    return Score(**{**values, "curve": [(step, loss) for step, loss in values["curve"]]})


@dataclass(frozen=True)
class Comparison:
    """The content of `results.json`: what is to be measured, and what is measured so far.

    Attributes:
        command: the command line.
        date: of the start, ISO 8601.
        versions: version by package.
        own: the setting of the fit that the verdict is about.
        precisions: the first is the baseline.
        axes: options of `fit`, each with the values at which time and memory are measured; numbers are ascending.
        metric: decides whether a precision keeps its accuracy.
        seeds: number of seeds for the metric.
        rounds: how often each time is measured.
        seconds: duration of each of these measurements.
        epochs: of a fit for the metric; None if another setting limits it.
        config: settings of the fits as plain values, as `--config` of `fit` takes them.
        cells: measurements in the order in which they were made.
        device: name of the device; empty before the first measurement.
        half_hardware: whether the device has instructions for bfloat16; None if that is not known.
    """

    command: str
    date: str
    versions: dict[str, str]
    own: Setting
    precisions: list[str]
    axes: dict[str, list[Any]]
    metric: Metric
    seeds: int
    rounds: int
    seconds: float
    epochs: int | None
    config: dict[str, Any]
    cells: list[Measurement]
    device: str = ""
    half_hardware: bool | None = None

    @property
    def baseline(self) -> str:
        return self.precisions[0]

    @property
    def network(self) -> str:
        """The network of `--network`, or the LightningModule of `--model`, and its parameters."""
        return described_class(self.config.get("network") or self.config["model"])

    def outcomes(self, kind: type[AnyOutcome]) -> list[tuple[Cell, AnyOutcome]]:
        """Return the cells whose outcome is of a class, and these outcomes.

        >>> [(cell.precision, speed.seconds) for cell, speed in comparison.outcomes(Speed)]  # doctest: +SKIP
        [('32-true', 0.0011), ('bf16-mixed', 0.0024)]
        """
        return [(found.cell, found.outcome) for found in self.cells if isinstance(found.outcome, kind)]

    def failures(self, kind: Kind) -> list[tuple[Cell, Failure]]:
        return [(cell, failure) for cell, failure in self.outcomes(Failure) if cell.kind == kind]

    def duplicate_of(self, precision: str) -> str | None:
        """Return the first precision before this one that has the same effect here; None if none has."""
        effective = {cell.precision: score.effective for cell, score in self.outcomes(Score)}
        effective |= {cell.precision: speed.effective for cell, speed in self.outcomes(Speed)}
        if precision not in effective:
            return None
        earlier = self.precisions[: self.precisions.index(precision)]
        return next((name for name in earlier if effective.get(name) == effective[precision]), None)

    def with_measurement(self, cell: Cell, outcome: Outcome, environment: Environment | None) -> Self:
        """Return this comparison with one more measurement, and with the environment if the measurement has one."""
        here = {} if environment is None else asdict(environment)
        return replace(self, cells=[*self.cells, Measurement(cell, outcome)], **here)

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"own": self.own.as_dict(), "metric": asdict(self.metric)}
        values |= {"cells": [measurement.to_json() for measurement in self.cells]}
        if not self.device:
            del values["device"], values["half_hardware"]
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` has returned.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type, or is unknown.
            AttributeError: a setting is not a mapping.
            FormerComparisonError: the values are those of another version.
        """
        cells = values["cells"]
        if values.get("schema") != SCHEMA:
            raise FormerComparisonError
        kept = {key: value for key, value in values.items() if key != "schema"}
        kept |= {"own": Setting.of(values["own"]), "metric": Metric(**values["metric"])}
        return cls(**{**kept, "cells": [Measurement.from_json(row) for row in cells]})

    def save(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` has written.

        Raises:
            OSError: the file can't be read.
            ValueError: it is not JSON, or not a comparison.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        try:
            return cls.from_json(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise NotAComparisonError(str(error)) from error


class NotAComparisonError(ValueError):
    """The JSON is that of something else."""


class FormerComparisonError(NotAComparisonError):
    """The JSON is that of a comparison by a former version."""
