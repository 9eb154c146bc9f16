"""The records of `mnist-amp compare`, and the one place that reads and writes its `results.json`; no torch here."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from mnist_amp.measuring.environment import Environment
from mnist_amp.runs.atomic_files import atomic_write

Kind = Literal["speed", "accuracy"]


class Setting(NamedTuple):
    """The size of a fit: width of the hidden layer, and images per batch."""

    hidden_dim: int
    batch_size: int

    def __str__(self) -> str:
        return f"hidden_dim {self.hidden_dim} and batch_size {self.batch_size}"


class Cell(NamedTuple):
    """One measurement that is planned.

    Attributes:
        kind: of measurement.
        precision: a key of `compare.PRECISIONS`.
        hidden_dim: width of the hidden layer.
        batch_size: images per batch.
        number: of the round for `speed`; the seed for `accuracy`.
    """

    kind: Kind
    precision: str
    hidden_dim: int
    batch_size: int
    number: int

    @property
    def setting(self) -> Setting:
        return Setting(self.hidden_dim, self.batch_size)


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of memory by what they hold, see `memory.measure_memory`; None if torch does not count it."""

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
class Speed:
    """A measured step.

    Attributes:
        effective: the precision in effect.
        seconds: mean time of an optimizer step, with the loop around it.
        steps: number of steps that were timed.
        memory: used by training.
        data_seconds: time to get a step's images, measured separately.
        not_captured: why the steps did not run as CUDA graphs; None if they did, or if that was impossible.
    """

    effective: str
    seconds: float
    steps: int
    memory: MemoryUse
    data_seconds: float
    not_captured: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """A completed fit.

    Attributes:
        effective: the precision in effect.
        accuracy: 0 to 1.
        of: name of the metric, `val_accuracy` or `train_accuracy`.
        steps: optimizer steps of the fit.
        curve: training loss as (optimizer step, loss), at most 100 points.
        loss_scale: at the end; None without a GradScaler.
        skipped_steps: number of steps that the GradScaler skipped; None without a GradScaler.
    """

    effective: str
    accuracy: float
    of: str
    steps: int
    curve: list[tuple[float, float]]
    loss_scale: float | None = None
    skipped_steps: int | None = None


@dataclass(frozen=True)
class Failure:
    """A measurement that failed, with the message of its error."""

    error: str


Outcome = Speed | Accuracy | Failure
AnyOutcome = TypeVar("AnyOutcome", Speed, Accuracy, Failure)


@dataclass(frozen=True)
class Measurement:
    """A cell and its outcome."""

    cell: Cell
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        optional = ("not_captured", "loss_scale", "skipped_steps")
        values = {key: value for key, value in asdict(self.outcome).items() if value is not None or key not in optional}
        return {**self.cell._asdict(), **values}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        cell = Cell(*(row[name] for name in Cell._fields))
        values = {key: value for key, value in row.items() if key not in Cell._fields}
        if "error" in values:
            return cls(cell, Failure(values["error"]))
        if cell.kind == "speed":
            return cls(cell, Speed(**{**values, "memory": MemoryUse(**values["memory"])}))
        return cls(cell, Accuracy(**{**values, "curve": [(step, loss) for step, loss in values["curve"]]}))


@dataclass(frozen=True)
class Comparison:
    """The content of `results.json`: what is to be measured, and what is measured so far.

    Attributes:
        command: the command line.
        date: of the start, ISO 8601.
        versions: version by package.
        own: the setting of the fit that the verdict is about.
        precisions: the first is the baseline.
        hidden_dims: widths at which time and memory are measured, ascending.
        batch_sizes: batch sizes at which time and memory are measured, ascending.
        seeds: number of seeds for the accuracy.
        rounds: how often each time is measured.
        seconds: duration of each of these measurements.
        epochs: of a fit for the accuracy; None if another setting limits it.
        config: settings of the fits as plain values, as `--config` of `fit` takes them.
        cells: measurements in the order in which they were made.
        device: name of the device; empty before the first measurement.
        half_hardware: whether the device has instructions for bfloat16; None before the first measurement.
    """

    command: str
    date: str
    versions: dict[str, str]
    own: Setting
    precisions: list[str]
    hidden_dims: list[int]
    batch_sizes: list[int]
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
        effective = {
            measurement.cell.precision: measurement.outcome.effective
            for measurement in self.cells
            if not isinstance(measurement.outcome, Failure)
        }
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
        values |= {"own": self.own._asdict(), "cells": [measurement.to_json() for measurement in self.cells]}
        if not self.device:
            del values["device"], values["half_hardware"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` has returned.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type, or is unknown.
        """
        cells = [Measurement.from_json(row) for row in values["cells"]]
        return cls(**{**values, "own": Setting(**values["own"]), "cells": cells})

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
        except (KeyError, TypeError) as error:
            raise NotAComparisonError(str(error)) from error


class NotAComparisonError(ValueError):
    """The JSON is that of something else."""
