"""The verdict of a comparison: a sentence for each finding, the advice first. No torch here."""

import itertools
import statistics

from mnist_amp.measuring import numerics_report, verdict
from mnist_amp.measuring.compare_records import Comparison, Inference, Setting, Speed, short_names
from mnist_amp.measuring.compare_rows import Row, common_scores, crossover_along, rows, scores, verdict_setting
from mnist_amp.measuring.inference_report import sentences as inference_sentences
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.measuring.reasons import reasons
from mnist_amp.wording import counted, listed

FP16_CPU_NOTE = " It is slow by design: a CPU has no fast fp16, and this precision only runs the code path of a GPU."
BUSY = 1.5  # the slowest round of most precisions takes this many times as long as their fastest
BUSY_NOTE = "The slowest rounds took {:.1f} times as long as the fastest: the machine was busy, so measure again."
COMPILE = "compile"  # the axis
EMULATED_NOTE = " This {} has no instructions for bfloat16, so PyTorch emulates it."


def heading(comparison: Comparison) -> str:
    """Return the setting and the device that the verdict is about."""
    setting = str(verdict_setting(comparison)) or comparison.network
    return f"With {setting} on {comparison.device}:"


def sentences(comparison: Comparison) -> list[str]:
    """Return the verdict: which precision to use, why, where that would change, accuracy and memory."""
    measured, own = rows(comparison), verdict_setting(comparison)
    here = [row for row in measured if row.setting == own]
    others = [row for row in here if row.speeds and row.precision != comparison.baseline]
    return [
        *_speeds(comparison, here, others),
        *_busy(measured),
        *_why(comparison, here, others),
        *_duplicates(comparison),
        *_failures(comparison),
        *_not_captured(comparison),
        *_gain_of_compiling(comparison, own),
        *_compiled(comparison),
        *(text for row in others if row.precision != "fp16-cpu" for text in _where_faster(row, comparison, measured)),
        *_scores(comparison),
        *_numerics(comparison),
        *_inference(comparison),
        *_memory(here),
    ]


def _speeds(comparison: Comparison, here: list[Row], others: list[Row]) -> list[str]:
    """Return the advice with its reason, and then the speed of each precision that is not the reason."""
    baseline = comparison.baseline
    if not any(row.precision == baseline and row.seconds for row in here):
        return [f"{baseline} failed here, so no precision can be compared with it."]
    failed = [failure for cell, failure in comparison.failures("score") if cell.precision == baseline]
    if failed and not scores(comparison).get(baseline):
        return [f"Training in {baseline} failed, so no precision can be advised: {failed[0].error}."]
    if not others:
        return [f"Use {baseline} here: no other precision could be measured."]
    candidates = _candidates(others)
    good = [row for row in candidates if row.is_faster and _problem(comparison, row) is None]
    reason = max(good or candidates, key=lambda row: row.speed)
    advice = f"Use {reason.precision} here: it" if good else f"Use {baseline} here: {reason.precision}"
    if comparison.rounds == 1:
        advice = f"Measure with --rounds 3 or more before you choose: {reason.precision}"
    rest = [row for row in others if row is not reason]
    return [
        f"{advice} is {_speed(reason, comparison)}",
        *(f"{row.precision} is {_speed(row, comparison)}" for row in rest),
    ]


def _candidates(others: list[Row]) -> list[Row]:
    """Return the rows that may be advised: without fp16 on a CPU, unless there is no other."""
    return [row for row in others if row.precision != "fp16-cpu"] or others


def _why(comparison: Comparison, here: list[Row], others: list[Row]) -> list[str]:
    """Return the reasons for the speed of the fastest precision against the baseline."""
    baseline = next((row for row in here if row.precision == comparison.baseline and row.seconds), None)
    candidates = _candidates(others)
    if baseline is None or not candidates:
        return []
    return reasons(baseline, max(candidates, key=lambda row: row.speed))


def _speed(row: Row, comparison: Comparison) -> str:
    """Describe the speed of a precision, and what else speaks for or against it."""
    problem = _problem(comparison, row) if row.is_faster or row.error else None
    but = f", but {problem}" if problem else ""
    return f"{verdict.describe(row.speeds, comparison.baseline)}{but}.{_note(row, comparison)}"


def _problem(comparison: Comparison, row: Row) -> str | None:
    """Describe what speaks against a precision besides its speed; None if nothing does, or if it is not known."""
    if row.error is not None:
        return row.error
    if any(cell.precision == row.precision for cell, _ in comparison.failures("score")):
        return "its training failed"
    before, after = common_scores(comparison, row.precision)
    if not before:
        return None
    differs = verdict.metric_differs(before, after)
    worse = differs and comparison.metric.is_worse(statistics.mean(after), statistics.mean(before))
    return f"its {comparison.metric.name} is worse" if worse else None


def _note(row: Row, comparison: Comparison) -> str:
    if row.precision == "fp16-cpu":
        return FP16_CPU_NOTE
    emulated = comparison.half_hardware is False and row.effective.startswith("bf16")
    kind = "CPU" if "CPU" in comparison.device else "GPU"
    return EMULATED_NOTE.format(kind) if emulated and verdict.classify(row.speeds) == "slower" else ""


def _duplicates(comparison: Comparison) -> list[str]:
    first = {name: comparison.duplicate_of(name) for name in comparison.precisions}
    return [f"{name} ran as {other} here, so it is not listed separately." for name, other in first.items() if other]


def _failures(comparison: Comparison) -> list[str]:
    return [
        *_out_of_memory(comparison),
        *(
            f"{row.precision}{_at(row)} failed: {row.error}"
            for row in rows(comparison)
            if row.error and not row.seconds and not row.out_of_memory
        ),
        *(
            f"Training in {cell.precision} with seed {cell.number} failed: {failure.error}"
            for cell, failure in comparison.failures("score")
        ),
    ]


def _at(row: Row) -> str:
    return f" with {row.setting}" if row.setting.values else ""


def _busy(measured: list[Row]) -> list[str]:
    """Describe a machine that is busy."""
    spreads = [max(row.seconds) / min(row.seconds) for row in measured if len(row.seconds) > 1]
    busy = statistics.median(spreads) if spreads else 1.0
    return [BUSY_NOTE.format(busy)] if busy > BUSY else []


def _out_of_memory(comparison: Comparison) -> list[str]:
    settings: dict[Setting, list[str]] = {}
    for row in rows(comparison):
        if row.out_of_memory:
            settings.setdefault(row.setting, []).append(row.precision)
    if not settings:
        return []
    texts = [f"{setting} in {listed(names)}" for setting, names in settings.items()]
    return [f"The memory is too small for {'; '.join(texts)}."]


def _not_captured(comparison: Comparison) -> list[str]:
    reasons = {cell.precision: speed.not_captured for cell, speed in comparison.outcomes(Speed) if speed.not_captured}
    return [f"The steps of {name} were not captured as CUDA graphs: {why}." for name, why in reasons.items()]


def _compiled(comparison: Comparison) -> list[str]:
    """Say what was compiled in each precision, and how long that took: mostly longest in the first round."""
    seconds = dict[tuple[str, str], list[float]]()
    for cell, speed in comparison.outcomes(Speed):
        if speed.compiled is not None and speed.compile_seconds is not None:
            seconds.setdefault((cell.precision, speed.compiled), []).append(speed.compile_seconds)
    return [
        f"In {name}, compiling {what} took {_range_of_seconds(times)}. No other time has it."
        for (name, what), times in seconds.items()
    ]


def _range_of_seconds(times: list[float]) -> str:
    least, most = f"{min(times):.1f} s", f"{max(times):.1f} s"
    return most if least == most else f"{most} at most and {least} at least, because code is kept for the next process"


def _gain_of_compiling(comparison: Comparison, own: Setting) -> list[str]:
    """Say for each precision what `compile` changes at the setting of the verdict, if it is an axis."""
    times = dict[str, dict[bool, dict[int, float]]]()
    for cell, speed in comparison.outcomes(Speed):
        is_same = COMPILE in comparison.axes and cell.setting.without(COMPILE) == own.without(COMPILE)
        if is_same and comparison.duplicate_of(cell.precision) is None:
            times.setdefault(cell.precision, {}).setdefault(cell.setting[COMPILE], {})[cell.number] = speed.seconds
    texts = []
    for name, found in times.items():
        before, after = found.get(False, {}), found.get(True, {})
        turns = [turn for turn in after if turn in before]
        if turns:
            old, new = (f"{1e3 * statistics.median(each[turn] for turn in turns):.3g} ms" for each in (before, after))
            text = verdict.describe([before[turn] / after[turn] for turn in turns], "without it")
            texts.append(f"With compile, a step in {name} takes {new} instead of {old}: it is {text}.")
    return texts


def _where_faster(row: Row, comparison: Comparison, measured: list[Row]) -> list[str]:
    """Describe where a precision is faster than the baseline: from which value of each axis of numbers on.

    Returns:
        One sentence, or none if the precision was measured at no other setting.
    """
    if not comparison.axes:
        return []
    name = f"{row.precision} is faster than {comparison.baseline}"
    starts = {axis: crossover_along(axis, row, measured) for axis in comparison.axes}
    found = [_upwards(axis, start, row) for axis, start in starts.items() if start is not None]
    if found:
        return [f"{name} {listed(found)}."]
    elsewhere = [other for other in measured if other.precision == row.precision and other.setting != row.setting]
    faster = [other for other in elsewhere if other.is_faster]
    if faster:
        where = "at other settings as well" if row.is_faster else "elsewhere"
        return [f"{name} {where}, for example with {faster[0].setting}."]
    if not elsewhere:
        return []
    if row.is_faster:
        return [f"{name} at no other measured setting."]
    axes = listed(list(short_names(comparison.axes).values()))
    return [f"{row.precision} is not faster than {comparison.baseline} at any measured {axes}."]


def _upwards(axis: str, start: float, row: Row) -> str:
    others = row.setting.without(axis)
    fixed = f" (with {others})" if others.values else ""
    number = f"{start:,.0f}" if start >= 10 else f"{start:.2g}"
    return f"from {short_names(row.setting.as_dict())[axis]} {number} upwards{fixed}"


def _scores(comparison: Comparison) -> list[str]:
    found, baseline, metric = scores(comparison), comparison.baseline, comparison.metric
    if not found.get(baseline):
        return []
    texts = []
    for name, values in found.items():
        spread = f" ± {metric.text(statistics.stdev(values))}" if len(values) > 1 else ""
        text = f"{name} {metric.text(statistics.mean(values))}{spread}"
        before, after = common_scores(comparison, name)
        if name != baseline and len(before) > 1:
            differs = verdict.metric_differs(before, after)
            text += " (a difference)" if differs else " (no difference beyond the spread)"
        texts.append(text)
    seeds = counted(len(found[baseline]), "seed")
    return [f"{metric.name} over {seeds}: {', '.join(texts)}."]


def _numerics(comparison: Comparison) -> list[str]:
    """Return the layers at risk, or why they are not known."""
    failed = [f"Numerics are not measured: {failure.error}" for _, failure in comparison.failures("numerics")]
    found = [numerics_report.sentences(numerics) for _, numerics in comparison.outcomes(Numerics)]
    return [*failed, *itertools.chain(*found)]


def _inference(comparison: Comparison) -> list[str]:
    """Return which way of inference to use, or why inference is not measured."""
    failed = [f"Inference is not measured: {failure.error}" for _, failure in comparison.failures("inference")]
    found = [outcome.results for _, outcome in comparison.outcomes(Inference)]
    return failed + [
        sentence for results in found for sentence in inference_sentences(results, comparison.metric.mode)[:2]
    ]


def _memory(here: list[Row]) -> list[str]:
    totals = [f"{row.precision} {row.memory.total / 1e6:,.2f} MB" for row in here if row.memory]
    return [f"Memory of training: {', '.join(totals)}."] if len(totals) > 1 else []
