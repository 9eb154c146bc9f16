"""What `mnist-amp compare` shows, made from the record that `results.json` holds; no torch here."""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from mnist_amp.measuring import verdict
from mnist_amp.reporting import plots
from mnist_amp.reporting.tables import facts, markdown, table
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.wording import counted

Results = dict[str, Any]
SLOW = "slow by design: a CPU has no fast fp16, and this is the code path of a GPU"
CHARTS = {
    "time.png": "Time of a step by width",
    "memory.png": "Memory by batch size",
    "accuracy.png": "Accuracy by seed",
    "loss.png": "Training loss",
}


class Row(NamedTuple):
    """A precision at a width and batch size, in all rounds.

    Attributes:
        seconds: of a step, by round; empty if it failed.
        speeds: how many times as fast as the baseline, by round; empty where one of the two failed.
        data_seconds: what getting a step's images takes of them.
        memory: bytes by what they hold.
    """

    precision: str
    effective: str
    hidden_dim: int
    batch_size: int
    seconds: list[float]
    speeds: list[float]
    data_seconds: float
    memory: dict[str, int | None]
    error: str | None

    @property
    def total_bytes(self) -> int:
        """Return the peak where that is known, else the sum of what is."""
        parts = ("weights", "gradients", "optimizer", "batch", "activations")
        return self.memory["peak"] or sum(self.memory[part] or 0 for part in parts)


def duplicate_of(results: Results, precision: str) -> str | None:
    """Return the name of the earlier precision that really is the same here; None if there is none."""
    effective = {cell["precision"]: cell["effective"] for cell in results["cells"] if "effective" in cell}
    earlier = results["precisions"][: results["precisions"].index(precision)]
    same = [name for name in earlier if precision in effective and effective.get(name) == effective[precision]]
    return same[0] if same else None


def rows(results: Results) -> list[Row]:
    """Return what was measured of speed, without what is another name for something else."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        if cell["kind"] == "speed" and duplicate_of(results, cell["precision"]) is None:
            cells.setdefault((cell["hidden_dim"], cell["batch_size"], cell["precision"]), []).append(cell)
    return [_row(results["precisions"][0], key, cells) for key in cells]


def _row(baseline: str, key: tuple[Any, ...], cells: dict[tuple[Any, ...], list[dict[str, Any]]]) -> Row:
    width, batch, precision = key
    failed = next((cell["error"] for cell in cells[key] if "error" in cell), None)
    good = {cell["number"]: cell for cell in cells[key] if "error" not in cell}
    others = {cell["number"]: cell for cell in cells.get((width, batch, baseline), []) if "error" not in cell}
    newest: dict[str, Any] = good[max(good)] if good else {"effective": "-", "memory": {}}
    return Row(
        precision=precision,
        effective=newest["effective"],
        hidden_dim=width,
        batch_size=batch,
        seconds=[cell["seconds"] for cell in good.values()],
        speeds=[others[turn]["seconds"] / good[turn]["seconds"] for turn in good if turn in others],
        data_seconds=statistics.median(cell["data_seconds"] for cell in good.values()) if good else 0.0,
        memory=newest["memory"],
        error=failed,
    )


def accuracies(results: Results) -> dict[str, list[float]]:
    """Return the accuracies (0 to 1) by precision, in the order of the seeds."""
    found: dict[str, list[float]] = {}
    for cell in results["cells"]:
        if cell["kind"] == "accuracy" and "error" not in cell:
            found.setdefault(cell["precision"], []).append(cell["accuracy"])
    return found


def verdicts(results: Results) -> list[str]:
    """Say in a sentence each: what to use for the fit's own setting, what it does to accuracy and memory, and where
    that would change.
    """
    own, measured = results["own"], rows(results)
    here = [row for row in measured if (row.hidden_dim, row.batch_size) == (own["hidden_dim"], own["batch_size"])]
    others = [row for row in here if row.speeds and row.precision != results["precisions"][0]]
    parts = [_advice(results, here), *(_in_words(row, results) for row in others), *_same(results)]
    parts += [
        f"{row.precision} at hidden_dim {row.hidden_dim} and batch {row.batch_size} failed: {row.error}"
        for row in measured
        if row.error
    ]
    parts += [
        f"Training in {cell['precision']} with seed {cell['number']} failed: {cell['error']}"
        for cell in results["cells"]
        if cell["kind"] == "accuracy" and "error" in cell
    ]
    reasons = {cell["precision"]: cell["not_captured"] for cell in results["cells"] if cell.get("not_captured")}
    parts += [f"The steps of {name} were not captured as CUDA graphs, as {why}." for name, why in reasons.items()]
    parts += [text for row in others for text in (_where(row, results, measured),) if text]
    return [*parts, *_accuracy_in_words(results), *_memory_in_words(here)]


def _advice(results: Results, here: list[Row]) -> str:
    baseline, own = results["precisions"][0], results["own"]
    others = [row for row in here if row.speeds and row.precision != baseline]
    good = [row for row in others if verdict.classify(row.speeds) == "faster" and not _is_worse(results, row)]
    best = max(good, key=lambda row: statistics.median(row.speeds), default=None)
    if not any(row.precision == baseline and row.seconds for row in here):
        return f"{baseline} failed here, so nothing can be compared with it."
    setting = f"For hidden_dim {own['hidden_dim']} and batch {own['batch_size']} on {results['device']}"
    if best is not None:
        return (
            f"{setting}, use {best.precision}: it is {statistics.median(best.speeds):.2f} times as fast as {baseline}."
        )
    faster = any(verdict.classify(row.speeds) == "faster" for row in others)
    return f"{setting}, stay with {baseline}: nothing {'faster keeps its accuracy' if faster else 'else is faster'}."


def _is_worse(results: Results, row: Row) -> bool:
    """Whether it is known that training in a precision fails, or costs accuracy."""
    scores, baseline = accuracies(results), results["precisions"][0]
    before, after = scores.get(baseline, []), scores.get(row.precision, [])
    if not before or len(before) != len(after):
        return bool(before)
    return verdict.accuracy_differs(before, after) and statistics.mean(after) < statistics.mean(before)


def _in_words(row: Row, results: Results) -> str:
    text = f"{row.precision} against {results['precisions'][0]}: {verdict.describe(row.speeds)}"
    if row.precision == "fp16-cpu":
        return f"{text}; it is {SLOW}."
    emulated = "CPU" in results["device"] and not results["half_hardware"] and "16" in row.effective
    if emulated and verdict.classify(row.speeds) == "slower":
        text += "; this CPU has no instructions for it, so it is emulated"
    return f"{text}."


def _same(results: Results) -> list[str]:
    twins = {name: duplicate_of(results, name) for name in results["precisions"]}
    return [f"{name} really ran as {other} here, so it is not listed again." for name, other in twins.items() if other]


def _where(row: Row, results: Results, measured: list[Row]) -> str | None:
    """Say where the verdict on a precision would change, by width and by batch size."""
    if row.precision == "fp16-cpu":
        return None
    found = []
    for axis, other in (("hidden_dim", "batch_size"), ("batch_size", "hidden_dim")):
        line = [
            cell
            for cell in measured
            if cell.precision == row.precision and cell.speeds and getattr(cell, other) == getattr(row, other)
        ]
        sizes = [(getattr(cell, axis), cell.speeds) for cell in sorted(line, key=lambda cell: getattr(cell, axis))]
        start = verdict.crossover(sizes)
        if start is not None:
            found.append(f"from {axis} {start:,.0f} on (at {other} {getattr(row, other)})")
    if found:
        return f"{row.precision} pays {' and '.join(found)}."
    faster = [cell for cell in measured if cell.precision == row.precision and cell.speeds]
    faster = [cell for cell in faster if verdict.classify(cell.speeds) == "faster"]
    if not faster:
        return f"{row.precision} pays at no width and batch size that was measured."
    least = min(faster, key=lambda cell: cell.hidden_dim * cell.batch_size)
    return f"{row.precision} pays elsewhere, as at hidden_dim {least.hidden_dim} and batch {least.batch_size}."


def _accuracy_in_words(results: Results) -> list[str]:
    scores, baseline = accuracies(results), results["precisions"][0]
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
    of = next(cell["of"] for cell in results["cells"] if cell["kind"] == "accuracy" and "of" in cell)
    images = "held-out" if of == "val_accuracy" else "training"
    seeds = counted(len(scores[baseline]), "seed")
    return [f"Accuracy on the {images} images over {seeds}: {', '.join(texts)}."]


def _memory_in_words(here: list[Row]) -> list[str]:
    known = [row for row in here if row.memory]
    if len(known) < 2:
        return []
    return [f"Memory: {', '.join(f'{row.precision} {row.total_bytes / 1e6:,.2f} MB' for row in known)}."]


def speed_table(results: Results) -> list[list[str]]:
    baseline = results["precisions"][0]
    lines = [["precision", "ran as", "hidden_dim", "batch", "ms a step", "least to most", "images ms", f"x {baseline}"]]
    for row in rows(results):
        name = [row.precision, row.effective, str(row.hidden_dim), str(row.batch_size)]
        if not row.seconds:
            lines.append([*name, "failed", "-", "-", "-"])
            continue
        times = [f"{1e3 * value:.3g}" for value in (min(row.seconds), max(row.seconds))]
        speed = f"{statistics.median(row.speeds):.2f}" if row.speeds else "-"
        middle = f"{1e3 * statistics.median(row.seconds):.3g}"
        lines.append([*name, middle, " to ".join(times), f"{1e3 * row.data_seconds:.2g}", speed])
    return lines


def memory_table(results: Results) -> list[list[str]]:
    parts = ["weights", "gradients", "optimizer", "batch", "activations", "data", "peak"]
    lines = [["precision", "hidden_dim", "batch", *(f"{part}, MB" for part in parts)]]
    for row in rows(results):
        if row.memory:
            figures = [row.memory[part] for part in parts]
            texts = ["-" if figure is None else f"{figure / 1e6:,.2f}" for figure in figures]
            lines.append([row.precision, str(row.hidden_dim), str(row.batch_size), *texts])
    return lines


def accuracy_table(results: Results) -> list[list[str]]:
    lines = [["precision", "ran as", "seed", "accuracy", "loss scale at the end", "skipped steps"]]
    for cell in results["cells"]:
        if cell["kind"] == "accuracy":
            scaling = [f"{cell[key]:,g}" if key in cell else "-" for key in ("loss_scale", "skipped_steps")]
            score = f"{cell['accuracy']:.2%}" if "accuracy" in cell else f"failed: {cell['error']}"
            lines.append([cell["precision"], cell.get("effective", "-"), str(cell["number"]), score, *scaling])
    return lines


def environment(results: Results) -> dict[str, str]:
    return {
        "device": results["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "date": results["date"],
        "command": results["command"],
    }


def report(results: Results) -> str:
    """Return `report.md`."""
    own = results["own"]
    steps = {cell["steps"] for cell in results["cells"] if "steps" in cell and cell["kind"] == "accuracy"}
    after = " and ".join(counted(count, "step") for count in sorted(steps))
    setting = f"hidden_dim {own['hidden_dim']}, batch {own['batch_size']}"
    rounds = (
        f"{counted(results['rounds'], 'interleaved round')} of {results['seconds']:g} s each at least, in "
        "processes of their own"
    )
    measured_on = {**environment(results), "command": f"`{results['command']}`"}
    parts = [
        "# What each precision does here",
        "\n".join(f"- {sentence}" for sentence in verdicts(results)),
        "## Time",
        f"Medians of {rounds}.",
        markdown(speed_table(results)),
        "## Memory",
        markdown(memory_table(results)),
        *([f"## Accuracy after {after}, {setting}", markdown(accuracy_table(results))] if accuracies(results) else []),
        *(f"![{CHARTS[name]}]({name})" for name in drawn(results)),
        "## Measured on",
        "\n".join(f"- {name}: {text}" for name, text in measured_on.items()),
    ]
    return "\n\n".join(parts) + "\n"


def drawn(results: Results) -> list[str]:
    """Return the names of the charts that there is something to draw for."""
    return [name for name in CHARTS if name in ("time.png", "memory.png") or accuracies(results)]


def write(results: Results, folder: Path) -> str:
    """Write `report.md` and the charts into the folder; returns what to print."""
    measured, scores = [row for row in rows(results) if row.seconds], accuracies(results)
    for name in drawn(results):
        with atomic_write(folder / name) as draft:
            if name == "time.png":
                points = [(row.batch_size, row.precision, row.hidden_dim, row.seconds) for row in measured]
                plots.times(points, _starts(measured), draft)
            elif name == "memory.png":
                plots.memory([(r.hidden_dim, r.precision, r.batch_size, r.total_bytes) for r in measured], draft)
            elif name == "accuracy.png":
                plots.accuracies(scores, draft)
            else:
                plots.losses(_curves(results), draft)
    with atomic_write(folder / "report.md") as draft:
        draft.write_text(report(results), encoding="utf-8")
    shown = facts({"files": f"{folder}/ (report.md, results.json, {', '.join(drawn(results))})"})
    return "\n".join(["", table(speed_table(results)), "", *verdicts(results), "", shown])


def _starts(measured: list[Row]) -> dict[tuple[int, str], float]:
    """Return, by batch size and precision, the width from which on it pays."""
    lines: dict[tuple[int, str], list[tuple[int, list[float]]]] = {}
    for row in sorted(measured, key=lambda row: row.hidden_dim):
        if row.speeds:
            lines.setdefault((row.batch_size, row.precision), []).append((row.hidden_dim, row.speeds))
    found = {key: verdict.crossover(line) for key, line in lines.items()}
    return {key: start for key, start in found.items() if start is not None}


def _curves(results: Results) -> dict[str, list[list[float]]]:
    """Return the loss curve of each precision with the first seed."""
    cells = [cell for cell in results["cells"] if cell["kind"] == "accuracy" and "curve" in cell]
    return {cell["precision"]: cell["curve"] for cell in reversed(cells)}
