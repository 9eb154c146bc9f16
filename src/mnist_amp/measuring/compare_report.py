"""The report of `mnist-amp compare`, from its records; no torch here.

`document` has the sections in their order: another section is another line there.
"""

import statistics
from pathlib import Path

from mnist_amp.measuring import inference_report, numerics_report
from mnist_amp.measuring.compare_charts import Drawing, memory_charts, score_charts, time_charts
from mnist_amp.measuring.compare_records import Comparison, Failure, Inference, Score, short_names, value_text
from mnist_amp.measuring.compare_rows import Row, rows, verdict_setting
from mnist_amp.measuring.compare_summary import summary
from mnist_amp.measuring.environment import join_versions, measured_on
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.measuring.verdict_sentences import heading, sentences
from mnist_amp.measuring.work_tables import types_table, work_table
from mnist_amp.reporting.document import Block, Bullets, Chart, Code, Document, Heading, Table, Text, to_markdown
from mnist_amp.reporting.report_files import described_files, write_report
from mnist_amp.wording import counted

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


def document(comparison: Comparison) -> Document:
    """Return the report: the verdict, then a section for each measurement, then the environment."""
    return Document(
        "Which precision to use",
        [
            Text(heading(comparison)),
            Bullets([Text(sentence) for sentence in sentences(comparison)]),
            *_time(comparison),
            *_work(comparison),
            *_memory(comparison),
            *_scores(comparison),
            *_numerics(comparison),
            *_inference(comparison),
            *_environment(comparison),
        ],
    )


def report(comparison: Comparison) -> str:
    """Return the content of `report.md`."""
    return to_markdown(document(comparison))


def write(comparison: Comparison, folder: Path) -> str:
    """Write `report.md`, `report.html` and the charts into the folder; return the text to print."""
    drawings = {**time_charts(comparison), **memory_charts(comparison), **score_charts(comparison)}
    charts = {name: drawing.draw for name, drawing in drawings.items()}
    write_report(document(comparison), charts, folder)
    return summary(comparison, described_files(folder, len(charts)))


def _time(comparison: Comparison) -> list[Block]:
    rounds = f"{counted(comparison.rounds, 'interleaved round')} of at least {comparison.seconds:g} s"
    return [
        Heading("Time"),
        Text(f"Medians of {rounds}, each in its own process. The speed is the median of the ratios within each round."),
        Table(speed_table(comparison), "Times of all settings"),
        *_blocks(time_charts(comparison)),
    ]


def _work(comparison: Comparison) -> list[Block]:
    work, types = work_table(comparison), types_table(comparison)
    if len(work) == 1:
        return []
    return [
        Heading("Work of a step"),
        Text(
            "Shares of the time of single steps. A step is a batch here, from its request to the next. Matrix products "
            "include convolutions and attention. The peak of the device was measured by large matrix products in this "
            "precision."
        ),
        Table(work, "Work of all settings"),
        Heading("Types"),
        Text(f"Operations with inputs of a type, and layers with outputs of it, {_at(comparison)}."),
        Table(types, "Types of all precisions"),
    ]


def _at(comparison: Comparison) -> str:
    return f"with {verdict_setting(comparison)}" if comparison.axes else "in a step"


def _numerics(comparison: Comparison) -> list[Block]:
    return [block for _, numerics in comparison.outcomes(Numerics) for block in numerics_report.sections(numerics)]


def _inference(comparison: Comparison) -> list[Block]:
    mode = comparison.metric.mode
    found = [outcome.results for _, outcome in comparison.outcomes(Inference)]
    return [block for results in found for block in inference_report.sections(results, mode)]


def _memory(comparison: Comparison) -> list[Block]:
    table = Table(memory_table(comparison), "Memory of all settings")
    return [Heading("Memory"), table, *_blocks(memory_charts(comparison))]


def _scores(comparison: Comparison) -> list[Block]:
    scored = {outcome.steps for _, outcome in comparison.outcomes(Score)}
    if not scored:
        return []
    after = " and ".join(counted(steps, "step") for steps in sorted(scored))
    return [
        Heading(f"{comparison.metric.name} after {after}"),
        Table(score_table(comparison), "All fits"),
        *_blocks(score_charts(comparison)),
    ]


def _environment(comparison: Comparison) -> list[Block]:
    return measured_on(
        {
            "device": comparison.device,
            "network": comparison.network,
            "versions": join_versions(comparison.versions),
            "date": comparison.date,
            "command": Code(comparison.command),
        }
    )


def _blocks(drawings: dict[str, Drawing]) -> list[Block]:
    """Return the places of charts in the document.

    >>> _blocks({"loss.png": Drawing("Training loss", draw=NotImplemented)})
    [Chart(title='Training loss', file='loss.png')]
    """
    return [Chart(drawing.title, file) for file, drawing in drawings.items()]
