"""The measurements of a comparison, summed up over rounds (time and memory) and seeds (accuracy). No torch here."""

import statistics
from dataclasses import dataclass

from mnist_amp.measuring import verdict
from mnist_amp.measuring.compare_records import Accuracy, Comparison, MemoryUse, Setting, Speed, is_number


@dataclass(frozen=True)
class Row:
    """A precision at a setting, over all rounds.

    Attributes:
        precision: as it was requested.
        effective: as it ran; empty if all rounds failed.
        setting: the value of each axis.
        seconds: time of a step in each round; empty if all failed.
        speeds: how many times as fast as the baseline in each round; empty if one of the two failed.
        data_seconds: time to get a step's images.
        memory: used by training; None if all rounds failed.
        error: of a round that failed; None if none did.
    """

    precision: str
    effective: str
    setting: Setting
    seconds: list[float]
    speeds: list[float]
    data_seconds: float
    memory: MemoryUse | None
    error: str | None

    @property
    def speed(self) -> float:
        """Return the median of the speeds."""
        return statistics.median(self.speeds)

    @property
    def is_faster(self) -> bool:
        return bool(self.speeds) and verdict.classify(self.speeds) == "faster"


def rows(comparison: Comparison) -> list[Row]:
    """Return a row for each precision and setting, without precisions that are duplicates here."""
    speeds: dict[tuple[Setting, str], dict[int, Speed]] = {}
    for cell, speed in comparison.outcomes(Speed):
        speeds.setdefault((cell.setting, cell.precision), {})[cell.number] = speed
    errors = {(cell.setting, cell.precision): failure.error for cell, failure in comparison.failures("speed")}
    keys = dict.fromkeys((m.cell.setting, m.cell.precision) for m in comparison.cells if m.cell.kind == "speed")
    found = []
    for setting, precision in keys:
        if comparison.duplicate_of(precision) is None:
            rounds, baseline = (speeds.get((setting, name), {}) for name in (precision, comparison.baseline))
            found.append(_row(precision, setting, rounds, baseline, errors.get((setting, precision))))
    return found


def _row(
    precision: str, setting: Setting, rounds: dict[int, Speed], baseline: dict[int, Speed], error: str | None
) -> Row:
    newest = rounds[max(rounds)] if rounds else None
    return Row(
        precision=precision,
        effective=newest.effective if newest else "",
        setting=setting,
        seconds=[speed.seconds for speed in rounds.values()],
        speeds=[baseline[turn].seconds / speed.seconds for turn, speed in rounds.items() if turn in baseline],
        data_seconds=statistics.median(speed.data_seconds for speed in rounds.values()) if rounds else 0.0,
        memory=newest.memory if newest else None,
        error=error,
    )


def accuracies(comparison: Comparison) -> dict[str, list[float]]:
    """Return the accuracies (0 to 1) by precision, in the order of the seeds."""
    found: dict[str, list[float]] = {}
    for cell, outcome in comparison.outcomes(Accuracy):
        found.setdefault(cell.precision, []).append(outcome.accuracy)
    return found


def crossover_along(axis: str, row: Row, measured: list[Row]) -> float | None:
    """Return the value from which on a row's precision is faster than the baseline; None if that is not known.

    Args:
        axis: at least two values that are numbers must have been measured.
        row: has the precision, and the values of the other axes.
        measured: all rows.
    """
    fixed = row.setting.without(axis)
    line = {
        other.setting[axis]: other.speeds
        for other in measured
        if other.precision == row.precision and other.speeds and other.setting.without(axis) == fixed
        if is_number(other.setting[axis])
    }
    return verdict.crossover(sorted(line.items())) if len(line) > 1 else None
