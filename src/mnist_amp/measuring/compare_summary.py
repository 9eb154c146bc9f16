"""The text that `mnist-amp compare` prints at its end: as much of the result as one screen holds. No torch here.

A terminal often has no more than 24 lines of 100 columns. The complete tables are in `report.md`. Printed are the
setting of the run with all that decides, a line for each other setting, and the sentences of the verdict that fit.
"""

import statistics

from mnist_amp.measuring.compare_records import Comparison, Setting, short_names, value_text
from mnist_amp.measuring.compare_rows import Row, rows, scores, verdict_setting
from mnist_amp.measuring.verdict_sentences import heading, sentences
from mnist_amp.reporting.tables import fit_columns, table, wrapped

WIDTH, LINES = 100, 23  # a screen, less the line of the prompt
OPTIONAL = ("waiting, ms", "ran as", "min to max")  # columns, the first that is left out first
OTHERS, FEWEST = 10, 3  # lines of other settings, less one for each precision; at least
REPORT = "report.md"


def summary(comparison: Comparison, files: str) -> str:
    """Return the text to print, at most 23 lines of 100 columns for the usual number of precisions.

    Args:
        comparison: with at least one measured time.
        files: of the report, for the last line.
    """
    own = verdict_setting(comparison)
    here = [row for row in rows(comparison) if row.setting == own]
    parts = [wrapped(heading(comparison), WIDTH), _lines(_own_table(here, comparison)), _others(here, comparison)]
    above = [line for part in parts if part for line in ("", *part)]
    del above[len(parts[0]) + 1]  # the heading and its table belong together
    last = wrapped(f"files  {files}", WIDTH)
    room = LINES - len(above) - 1 - len(last)
    return "\n".join([*above, "", *_verdict(sentences(comparison), room), *last])


def _verdict(found: list[str], room: int) -> list[str]:
    """Return the lines of the sentences that fit, in their order; the first sentence always does."""
    texts = [wrapped(sentence, WIDTH) for sentence in found]
    if sum(map(len, texts)) <= room:
        return [line for text in texts for line in text]
    lines, more = list(texts[0]), 0
    for text in texts[1:]:
        if len(lines) + len(text) < room:  # a line is left for the number of the others
            lines += text
        else:
            more += 1
    return [*lines, f"{more} more {'sentence is' if more == 1 else 'sentences are'} in {REPORT}."]


def _lines(cells: list[list[str]]) -> list[str]:
    """Return the lines of a table that is no wider than the screen."""
    lines = table(fit_columns(cells, WIDTH, OPTIONAL)).splitlines()
    return [line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines]


def _own_table(here: list[Row], comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of the run's own setting, with a column for all that decides."""
    metric = scores(comparison)
    head = ["precision", "ran as", "ms per step", "min to max", "waiting, ms", f"speed ({comparison.baseline} = 1)"]
    cells = [[*head, "memory, MB", *([comparison.metric.name] if metric else [])]]
    for row in here:
        memory = f"{row.memory.total / 1e6:,.2f}" if row.memory else "-"
        score = [_score(metric.get(row.precision, []), comparison)] if metric else []
        cells.append([row.precision, row.effective or "-", *_times(row), memory, *score])
    if all(row.effective in ("", row.precision) for row in here):
        cells = [[*line[:1], *line[2:]] for line in cells]
    return cells


def _times(row: Row) -> list[str]:
    if not row.seconds:
        return ["out of memory" if row.out_of_memory else "failed", "-", "-", "-"]
    low, high, middle = (1e3 * value for value in (min(row.seconds), max(row.seconds), statistics.median(row.seconds)))
    waiting = f"{1e3 * row.waiting_seconds:.2g}"
    return [f"{middle:.3g}", f"{low:.3g} to {high:.3g}", waiting, f"{row.speed:.2f}" if row.speeds else "-"]


def _score(values: list[float], comparison: Comparison) -> str:
    if not values:
        return "-"
    spread = f" ± {comparison.metric.text(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{comparison.metric.text(statistics.mean(values))}{spread}"


def _others(here: list[Row], comparison: Comparison) -> list[str]:
    """Return a line for each other setting, with the time of the baseline and the speed of the other precisions."""
    own, found = verdict_setting(comparison), dict[Setting, dict[str, Row]]()
    for row in rows(comparison):
        if row.setting != own:
            found.setdefault(row.setting, {})[row.precision] = row
    if not found:
        return []
    precisions = list(dict.fromkeys(name for by_name in found.values() for name in by_name))
    heads = [f"{name}, {'ms' if name == comparison.baseline else 'speed'}" for name in precisions]
    cells = [[*short_names(comparison.axes).values(), *heads]]
    for setting, by_name in found.items():
        texts = [_short(by_name.get(name), comparison) for name in precisions]
        cells.append([*(value_text(value) for _, value in setting.values), *texts])
    shown = max(OTHERS - len(here), FEWEST)
    more = len(found) - shown
    noun = "setting is" if more == 1 else "settings are"
    return _lines(cells[: shown + 1]) + ([f"{more} more {noun} in {REPORT}."] if more > 0 else [])


def _short(row: Row | None, comparison: Comparison) -> str:
    if row is None:
        return "-"
    if not row.seconds:
        return "out of memory" if row.out_of_memory else "failed"
    if row.precision == comparison.baseline:
        return f"{1e3 * statistics.median(row.seconds):.3g}"
    return f"{row.speed:.2f}" if row.speeds else "-"
