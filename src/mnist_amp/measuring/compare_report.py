"""The tables, `report.md` and charts of `mnist-amp compare`, from its records; no torch here."""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mnist_amp.measuring.compare_records import Comparison, Failure, Score, is_number, short_names, value_text
from mnist_amp.measuring.compare_rows import Row, crossover_along, rows, scores
from mnist_amp.measuring.environment import join_versions, measured_on
from mnist_amp.measuring.verdict_sentences import heading, sentences
from mnist_amp.reporting import plots
from mnist_amp.reporting.tables import facts, markdown, table
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.wording import counted, described_class

MEMORY_PARTS = ("weights", "gradients", "optimizer", "batch", "activations", "data", "peak")


def speed_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of times, the head first."""
    speed_head = f"speed ({comparison.baseline} = 1)"
    axes = short_names(comparison.axes).values()
    lines = [["precision", "ran as", *axes, "ms per step", "min to max", "waiting, ms", speed_head]]
    for row in rows(comparison):
        name = [row.precision, row.effective or "-", *_values(row)]
        if not row.seconds:
            lines.append([*name, "out of memory" if row.out_of_memory else "failed", "-", "-", "-"])
            continue
        times = [f"{1e3 * value:.3g}" for value in (min(row.seconds), max(row.seconds))]
        speed = f"{row.speed:.2f}" if row.speeds else "-"
        middle = f"{1e3 * statistics.median(row.seconds):.3g}"
        lines.append([*name, middle, " to ".join(times), f"{1e3 * row.waiting_seconds:.2g}", speed])
    return lines


def memory_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of memory, the head first."""
    axes = short_names(comparison.axes).values()
    lines = [["precision", *axes, *(f"{part}, MB" for part in MEMORY_PARTS)]]
    for row in rows(comparison):
        if row.memory:
            sizes: list[int | None] = [getattr(row.memory, part) for part in MEMORY_PARTS]
            texts = ["-" if size is None else f"{size / 1e6:,.2f}" for size in sizes]
            lines.append([row.precision, *_values(row), *texts])
    return lines


def _values(row: Row) -> list[str]:
    return [value_text(value) for _, value in row.setting.values]


def score_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of the metric, the head first."""
    lines = [["precision", "ran as", "seed", comparison.metric.name, "final loss scale", "skipped steps"]]
    for measurement in comparison.cells:
        cell, outcome = measurement.cell, measurement.outcome
        if isinstance(outcome, Score):
            scaling = ["-" if value is None else f"{value:,g}" for value in (outcome.loss_scale, outcome.skipped_steps)]
            value = comparison.metric.text(outcome.value)
            lines.append([cell.precision, outcome.effective, str(cell.number), value, *scaling])
        elif cell.kind == "score" and isinstance(outcome, Failure):
            lines.append([cell.precision, "-", str(cell.number), f"failed: {outcome.error}", "-", "-"])
    return lines


def report(comparison: Comparison) -> str:
    """Return the content of `report.md`."""
    rounds = f"{counted(comparison.rounds, 'interleaved round')} of at least {comparison.seconds:g} s"
    scored = [outcome.steps for _, outcome in comparison.outcomes(Score)]
    after = " and ".join(counted(steps, "step") for steps in sorted(set(scored)))
    sections = [
        "# Which precision to use",
        heading(comparison),
        "\n".join(f"- {sentence}" for sentence in sentences(comparison)),
        "## Time",
        f"Medians of {rounds}, each in its own process.",
        markdown(speed_table(comparison)),
        "## Memory",
        markdown(memory_table(comparison)),
    ]
    if scored:
        sections += [f"## {comparison.metric.name} after {after}", markdown(score_table(comparison))]
    sections += [f"![{title}]({name})" for name, (title, _) in charts(comparison).items()]
    on = {
        "device": comparison.device,
        "network": described_class(comparison.config.get("network") or comparison.config["model"]),
        "versions": join_versions(comparison.versions),
        "date": comparison.date,
        "command": f"`{comparison.command}`",
    }
    return "\n\n".join([*sections, measured_on(on)]) + "\n"


def charts(comparison: Comparison) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """Return title and drawing function of each chart, by file name; those of accuracy only if it was measured."""
    names = short_names(comparison.axes)
    found: dict[str, tuple[str, Callable[[Path], None]]] = {}
    if comparison.axes:
        first, last = drawn_axes(comparison.axes)
        time = partial(_draw_times, comparison, first)
        memory = partial(_draw_memory, comparison, last)
        found = {
            "time.png": (f"Time of a step by {names[first]}", time),
            "memory.png": (f"Memory by {names[last]}", memory),
        }
    if found_scores := scores(comparison):
        found["accuracy.png"] = ("Accuracy by seed", lambda path: plots.accuracies(found_scores, path))
        found["loss.png"] = ("Training loss", lambda path: plots.losses(_first_curves(comparison), path))
    return found


def write(comparison: Comparison, folder: Path) -> str:
    """Write `report.md` and the charts into the folder; return the text to print."""
    drawn = charts(comparison)
    for name, (_, draw) in drawn.items():
        with atomic_write(folder / name) as temporary:
            draw(temporary)
    with atomic_write(folder / "report.md") as temporary:
        temporary.write_text(report(comparison), encoding="utf-8")
    files = facts({"files": f"{folder}/ ({', '.join(('report.md', 'results.json', *drawn))})"})
    verdict = [heading(comparison), *sentences(comparison)]
    return "\n".join(["", table(speed_table(comparison)), "", *verdict, "", files])


def drawn_axes(axes: Mapping[str, list[Any]]) -> tuple[str, str]:
    """Return the horizontal axes of the charts of time and memory: the first and the last axis that has a scale.

    An axis of several numbers comes before one of other values, and an axis of a single value comes last.

    >>> drawn_axes({"network.width": [16, 64], "optimizer.fused": [True, False], "data.batch_size": [32, 512]})
    ('network.width', 'data.batch_size')
    """
    several = [axis for axis, values in axes.items() if len(values) > 1] or list(axes)
    found = [axis for axis in several if all(map(is_number, axes[axis]))] or several
    return found[0], found[-1]


def _draw_times(comparison: Comparison, axis: str, path: Path) -> None:
    """Draw the times, and the value of the axis from which on a precision is faster with the values of the others."""
    measured = [row for row in rows(comparison) if row.seconds]
    points = [(_panel(row, axis), row.precision, _drawn(row, axis), row.seconds) for row in measured]
    starts = {(_panel(row, axis), row.precision): crossover_along(axis, row, measured) for row in measured}
    has_scale = all(is_number(row.setting[axis]) for row in measured)
    known = {key: start for key, start in starts.items() if start is not None and has_scale}
    plots.times(points, known, short_names(comparison.axes)[axis], path)


def _draw_memory(comparison: Comparison, axis: str, path: Path) -> None:
    found = [(row, row.memory.total) for row in rows(comparison) if row.memory]
    points = [(_panel(row, axis), row.precision, _drawn(row, axis), total) for row, total in found]
    plots.memory(points, short_names(comparison.axes)[axis], path)


def _panel(row: Row, axis: str) -> str:
    return str(row.setting.without(axis))


def _drawn(row: Row, axis: str) -> float | str:
    """Return the value of a row as plots take it: a number, or text."""
    value: Any = row.setting[axis]
    return value if is_number(value) else value_text(value)


def _first_curves(comparison: Comparison) -> dict[str, list[list[float]]]:
    """Return the loss curve of each precision with its first seed."""
    curves = {cell.precision: outcome.curve for cell, outcome in reversed(comparison.outcomes(Score))}
    return {name: [list(point) for point in curve] for name, curve in curves.items()}
