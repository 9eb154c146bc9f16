"""The measurements of a comparison, summed up over rounds (time) and seeds (the metric). No torch here."""

import statistics
from dataclasses import dataclass, replace

from mnist_amp.measuring import verdict
from mnist_amp.measuring.compare_records import Comparison, Score, Setting, Speed, batch_axis, is_number
from mnist_amp.measuring.profile_records import MemoryUse, Profile


@dataclass(frozen=True)
class Row:
    """A precision at a setting, over all rounds.

    Attributes:
        precision: as it was requested.
        effective: as it ran; empty if all rounds failed.
        setting: the value of each axis.
        seconds: time of a step in each round; empty if all failed.
        speeds: how many times as fast as the baseline in each round; empty if one of the two failed.
        waiting_seconds: time of a step in which the host waits for its batches.
        profile: of single steps; None if it failed.
        error: of a measurement that failed; None if none did.
        out_of_memory: whether it failed because the memory was too small.
    """

    precision: str
    effective: str
    setting: Setting
    seconds: list[float]
    speeds: list[float]
    waiting_seconds: float
    profile: Profile | None
    error: str | None
    out_of_memory: bool = False

    @property
    def speed(self) -> float:
        """Return the median of the speeds."""
        return statistics.median(self.speeds)

    @property
    def waiting_share(self) -> float:
        """Return the part of a step in which the host waits for its batches, 0 to 1."""
        return self.waiting_seconds / statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def memory(self) -> MemoryUse | None:
        """Return the memory of training; None if it is not known."""
        return None if self.profile is None else self.profile.memory

    @property
    def is_faster(self) -> bool:
        return bool(self.speeds) and verdict.classify(self.speeds) == "faster"


def rows(comparison: Comparison) -> list[Row]:
    """Return a row for each precision and setting, without precisions that are duplicates here."""
    speeds: dict[tuple[Setting, str], dict[int, Speed]] = {}
    for cell, speed in comparison.outcomes(Speed):
        speeds.setdefault((cell.setting, cell.precision), {})[cell.number] = speed
    profiles = {(cell.setting, cell.precision): profile for cell, profile in comparison.outcomes(Profile)}
    failed = [*comparison.failures("profile"), *comparison.failures("speed")]
    errors = {(cell.setting, cell.precision): failure.error for cell, failure in failed}
    too_large = {
        (cell.setting, cell.precision) for cell, failure in comparison.failures("speed") if failure.out_of_memory
    }
    keys = dict.fromkeys((m.cell.setting, m.cell.precision) for m in comparison.cells if m.cell.kind == "speed")
    found = []
    for setting, precision in keys:
        if comparison.duplicate_of(precision) is None:
            rounds, baseline = (speeds.get((setting, name), {}) for name in (precision, comparison.baseline))
            known, profile = (setting, precision), profiles.get((setting, precision))
            error = errors.get(known) or _overflow(profile, profiles.get((setting, comparison.baseline)))
            found.append(replace(_row(known, rounds, baseline, profile, error), out_of_memory=known in too_large))
    return found


def _overflow(profile: Profile | None, baseline: Profile | None) -> str | None:
    """Describe the first layer that is not finite, unless it is the same in the baseline."""
    layer = None if profile is None else profile.non_finite
    if layer is None or (baseline is not None and baseline.non_finite == layer):
        return None
    if layer.startswith("before "):
        return f"the values {layer.replace('before ', 'before layer ')} are not finite (inf or nan)"
    return f"the output of layer {layer} is not finite (inf or nan)"


def _row(
    known: tuple[Setting, str],
    rounds: dict[int, Speed],
    baseline: dict[int, Speed],
    profile: Profile | None,
    error: str | None,
) -> Row:
    setting, precision = known
    return Row(
        precision=precision,
        effective=next(iter(rounds.values())).effective if rounds else "",
        setting=setting,
        seconds=[speed.seconds for speed in rounds.values()],
        speeds=[baseline[turn].seconds / speed.seconds for turn, speed in rounds.items() if turn in baseline],
        waiting_seconds=statistics.median(speed.waiting_seconds for speed in rounds.values()) if rounds else 0.0,
        profile=profile,
        error=error,
    )


def verdict_setting(comparison: Comparison) -> Setting:
    """Return the setting that the verdict is about: that of the run, or a smaller batch if the memory is too small."""
    own, axis = comparison.own, batch_axis(comparison.axes)
    baseline = [row for row in rows(comparison) if row.precision == comparison.baseline]
    too_large = any(row.setting == own and row.out_of_memory for row in baseline)
    if axis is None or not too_large:
        return own
    smaller = [row.setting for row in baseline if row.seconds and row.setting.without(axis) == own.without(axis)]
    return max((each for each in smaller if each[axis] < own[axis]), key=lambda each: each[axis], default=own)


def scores(comparison: Comparison) -> dict[str, list[float]]:
    """Return the values of the metric by precision, in the order of the seeds."""
    return {precision: list(found.values()) for precision, found in _scores_by_seed(comparison).items()}


def common_scores(comparison: Comparison, precision: str) -> tuple[list[float], list[float]]:
    """Return the values of the baseline and of a precision for the seeds that both have completed."""
    found = _scores_by_seed(comparison)
    before, after = found.get(comparison.baseline, {}), found.get(precision, {})
    seeds = [seed for seed in before if seed in after]
    return [before[seed] for seed in seeds], [after[seed] for seed in seeds]


def _scores_by_seed(comparison: Comparison) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for cell, outcome in comparison.outcomes(Score):
        found.setdefault(cell.precision, {})[cell.number] = outcome.value
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
