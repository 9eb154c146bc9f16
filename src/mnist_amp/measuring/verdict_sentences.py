"""The verdict of a comparison: a sentence for each finding, the advice first. No torch here."""

import statistics

from mnist_amp.measuring import verdict
from mnist_amp.measuring.compare_records import Accuracy, Comparison, Speed, short_names
from mnist_amp.measuring.compare_rows import Row, accuracies, crossover_along, rows
from mnist_amp.wording import counted, listed

FP16_CPU_NOTE = " It is slow by design: a CPU has no fast fp16, and this precision only runs the code path of a GPU."
EMULATED_NOTE = " This CPU has no instructions for bfloat16, so PyTorch emulates it."


def heading(comparison: Comparison) -> str:
    """Return the setting and the device that the verdict is about."""
    return f"With {comparison.own} on {comparison.device}:"


def sentences(comparison: Comparison) -> list[str]:
    """Return the verdict: which precision to use, why, where that would change, accuracy and memory."""
    measured = rows(comparison)
    here = [row for row in measured if row.setting == comparison.own]
    others = [row for row in here if row.speeds and row.precision != comparison.baseline]
    return [
        *_speeds(comparison, here, others),
        *_duplicates(comparison),
        *_failures(comparison),
        *_not_captured(comparison),
        *(text for row in others if row.precision != "fp16-cpu" for text in _where_faster(row, comparison, measured)),
        *_accuracy(comparison),
        *_memory(here),
    ]


def _speeds(comparison: Comparison, here: list[Row], others: list[Row]) -> list[str]:
    """Return the advice with its reason, and then the speed of each precision that is not the reason."""
    baseline = comparison.baseline
    if not any(row.precision == baseline and row.seconds for row in here):
        return [f"{baseline} failed here, so no precision can be compared with it."]
    if not others:
        return [f"Use {baseline} here: no other precision could be measured."]
    candidates = [row for row in others if row.precision != "fp16-cpu"] or others
    good = [row for row in candidates if row.is_faster and _loss_of_accuracy(comparison, row) is None]
    reason = max(good or candidates, key=lambda row: row.speed)
    advice = f"Use {reason.precision} here: it" if good else f"Use {baseline} here: {reason.precision}"
    rest = [row for row in others if row is not reason]
    return [
        f"{advice} is {_speed(reason, comparison)}",
        *(f"{row.precision} is {_speed(row, comparison)}" for row in rest),
    ]


def _speed(row: Row, comparison: Comparison) -> str:
    """Describe the speed of a precision, and what else speaks for or against it."""
    loss = _loss_of_accuracy(comparison, row) if row.is_faster else None
    but = f", but {loss}" if loss else ""
    return f"{verdict.describe(row.speeds, comparison.baseline)}{but}.{_note(row, comparison)}"


def _loss_of_accuracy(comparison: Comparison, row: Row) -> str | None:
    """Describe the loss of accuracy of a precision; None if it has none, or if it is not known."""
    scores = accuracies(comparison)
    before, after = scores.get(comparison.baseline, []), scores.get(row.precision, [])
    if not before:
        return None
    if len(before) != len(after):
        return "its training failed"
    lower = verdict.accuracy_differs(before, after) and statistics.mean(after) < statistics.mean(before)
    return "its accuracy is lower" if lower else None


def _note(row: Row, comparison: Comparison) -> str:
    if row.precision == "fp16-cpu":
        return FP16_CPU_NOTE
    emulated = "CPU" in comparison.device and not comparison.half_hardware and "16" in row.effective
    return EMULATED_NOTE if emulated and verdict.classify(row.speeds) == "slower" else ""


def _duplicates(comparison: Comparison) -> list[str]:
    first = {name: comparison.duplicate_of(name) for name in comparison.precisions}
    return [f"{name} ran as {other} here, so it is not listed separately." for name, other in first.items() if other]


def _failures(comparison: Comparison) -> list[str]:
    return [
        *(f"{row.precision} with {row.setting} failed: {row.error}" for row in rows(comparison) if row.error),
        *(
            f"Training in {cell.precision} with seed {cell.number} failed: {failure.error}"
            for cell, failure in comparison.failures("accuracy")
        ),
    ]


def _not_captured(comparison: Comparison) -> list[str]:
    reasons = {cell.precision: speed.not_captured for cell, speed in comparison.outcomes(Speed) if speed.not_captured}
    return [f"The steps of {name} were not captured as CUDA graphs: {why}." for name, why in reasons.items()]


def _where_faster(row: Row, comparison: Comparison, measured: list[Row]) -> list[str]:
    """Describe where a precision is faster than the baseline: from which value of each axis of numbers on.

    Returns:
        One sentence, or none if the precision was measured at no other setting.
    """
    name = f"{row.precision} is faster than {comparison.baseline}"
    starts = {axis: crossover_along(axis, row, measured) for axis in comparison.axes}
    found = [_upwards(axis, start, row) for axis, start in starts.items() if start is not None]
    if found:
        return [f"{name} {listed(found)}."]
    elsewhere = [other for other in measured if other.precision == row.precision and other.setting != row.setting]
    faster = [other for other in elsewhere if other.is_faster]
    if faster:
        return [f"{name} elsewhere, for example with {faster[0].setting}."]
    if row.is_faster:
        return [f"{name} at no other measured setting."] if elsewhere else []
    axes = listed(list(short_names(comparison.axes).values()))
    return [f"{row.precision} is not faster than {comparison.baseline} at any measured {axes}."]


def _upwards(axis: str, start: float, row: Row) -> str:
    others = row.setting.without(axis)
    fixed = f" (with {others})" if others.values else ""
    number = f"{start:,.0f}" if start >= 10 else f"{start:.2g}"
    return f"from {short_names(row.setting.as_dict())[axis]} {number} upwards{fixed}"


def _accuracy(comparison: Comparison) -> list[str]:
    scores, baseline = accuracies(comparison), comparison.baseline
    if not scores.get(baseline):
        return []
    texts = []
    for name, found in scores.items():
        spread = f" ± {statistics.stdev(found):.2%}" if len(found) > 1 else ""
        text = f"{name} {statistics.mean(found):.2%}{spread}"
        if name != baseline and len(found) == len(scores[baseline]) > 1:
            differs = verdict.accuracy_differs(scores[baseline], found)
            text += " (a difference)" if differs else " (no difference beyond the spread)"
        texts.append(text)
    metric = comparison.outcomes(Accuracy)[0][1].of
    images = "validation" if metric == "val_accuracy" else "training"
    seeds = counted(len(scores[baseline]), "seed")
    return [f"Accuracy on the {images} images over {seeds}: {', '.join(texts)}."]


def _memory(here: list[Row]) -> list[str]:
    totals = [f"{row.precision} {row.memory.total / 1e6:,.2f} MB" for row in here if row.memory]
    return [f"Memory of training: {', '.join(totals)}."] if len(totals) > 1 else []
