"""The tables, `report.md` and charts of `mnist-amp compare`, from its records; no torch here."""

import statistics
from collections.abc import Callable
from pathlib import Path

from mnist_amp.measuring.compare_records import Accuracy, Comparison, Failure
from mnist_amp.measuring.compare_rows import accuracies, crossover_along, rows
from mnist_amp.measuring.environment import join_versions, measured_on
from mnist_amp.measuring.verdict_sentences import heading, sentences
from mnist_amp.reporting import plots
from mnist_amp.reporting.tables import facts, markdown, table
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.wording import counted

MEMORY_PARTS = ("weights", "gradients", "optimizer", "batch", "activations", "data", "peak")


def speed_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of times, the head first."""
    speed_head = f"speed ({comparison.baseline} = 1)"
    lines = [["precision", "ran as", "hidden_dim", "batch_size", "ms per step", "min to max", "data, ms", speed_head]]
    for row in rows(comparison):
        name = [row.precision, row.effective or "-", *map(str, row.setting)]
        if not row.seconds:
            lines.append([*name, "failed", "-", "-", "-"])
            continue
        times = [f"{1e3 * value:.3g}" for value in (min(row.seconds), max(row.seconds))]
        speed = f"{row.speed:.2f}" if row.speeds else "-"
        middle = f"{1e3 * statistics.median(row.seconds):.3g}"
        lines.append([*name, middle, " to ".join(times), f"{1e3 * row.data_seconds:.2g}", speed])
    return lines


def memory_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of memory, the head first."""
    lines = [["precision", *comparison.own._fields, *(f"{part}, MB" for part in MEMORY_PARTS)]]
    for row in rows(comparison):
        if row.memory:
            sizes: list[int | None] = [getattr(row.memory, part) for part in MEMORY_PARTS]
            texts = ["-" if size is None else f"{size / 1e6:,.2f}" for size in sizes]
            lines.append([row.precision, *map(str, row.setting), *texts])
    return lines


def accuracy_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of accuracies, the head first."""
    lines = [["precision", "ran as", "seed", "accuracy", "final loss scale", "skipped steps"]]
    for measurement in comparison.cells:
        cell, outcome = measurement.cell, measurement.outcome
        if isinstance(outcome, Accuracy):
            scaling = ["-" if value is None else f"{value:,g}" for value in (outcome.loss_scale, outcome.skipped_steps)]
            lines.append([cell.precision, outcome.effective, str(cell.number), f"{outcome.accuracy:.2%}", *scaling])
        elif cell.kind == "accuracy" and isinstance(outcome, Failure):
            lines.append([cell.precision, "-", str(cell.number), f"failed: {outcome.error}", "-", "-"])
    return lines


def report(comparison: Comparison) -> str:
    """Return the content of `report.md`."""
    rounds = f"{counted(comparison.rounds, 'interleaved round')} of at least {comparison.seconds:g} s"
    scored = [outcome.steps for _, outcome in comparison.outcomes(Accuracy)]
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
        sections += [f"## Accuracy after {after} with {comparison.own}", markdown(accuracy_table(comparison))]
    sections += [f"![{title}]({name})" for name, (title, _) in charts(comparison).items()]
    on = {
        "device": comparison.device,
        "versions": join_versions(comparison.versions),
        "date": comparison.date,
        "command": f"`{comparison.command}`",
    }
    return "\n\n".join([*sections, measured_on(on)]) + "\n"


def charts(comparison: Comparison) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """Return title and drawing function of each chart, by file name; those of accuracy only if it was measured."""
    found: dict[str, tuple[str, Callable[[Path], None]]] = {
        "time.png": ("Time of a step by width", lambda path: _draw_times(comparison, path)),
        "memory.png": ("Memory by batch size", lambda path: _draw_memory(comparison, path)),
    }
    if scores := accuracies(comparison):
        found["accuracy.png"] = ("Accuracy by seed", lambda path: plots.accuracies(scores, path))
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


def _draw_times(comparison: Comparison, path: Path) -> None:
    """Draw the times, and for each batch size and precision the width from which on it is faster."""
    measured = [row for row in rows(comparison) if row.seconds]
    points = [(row.setting.batch_size, row.precision, row.setting.hidden_dim, row.seconds) for row in measured]
    starts = {(row.setting.batch_size, row.precision): crossover_along(0, row, measured) for row in measured}
    plots.times(points, {key: start for key, start in starts.items() if start is not None}, path)


def _draw_memory(comparison: Comparison, path: Path) -> None:
    points = [(row.setting, row.precision, row.memory.total) for row in rows(comparison) if row.memory]
    plots.memory([(setting.hidden_dim, name, setting.batch_size, total) for setting, name, total in points], path)


def _first_curves(comparison: Comparison) -> dict[str, list[list[float]]]:
    """Return the loss curve of each precision with its first seed."""
    curves = {cell.precision: outcome.curve for cell, outcome in reversed(comparison.outcomes(Accuracy))}
    return {name: [list(point) for point in curve] for name, curve in curves.items()}
