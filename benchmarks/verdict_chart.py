"""Draw the verdict of a saved comparison as one chart: the speed of each precision, and what it does to accuracy.

    python benchmarks/verdict_chart.py

Reads docs/results/compare-cpu/results.json, which `mnist-amp compare` wrote, and draws verdict.png beside it.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_amp.measuring.compare_records import Setting, short_names, value_text

RESULTS = Path(__file__).parents[1] / "docs" / "results"
GRAY, COLORS = "#777777", ("#3f51b5", "#ff9800", "#4caf50", "#9c27b0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS / "compare-cpu", help="with results.json")
    folder = parser.parse_args().folder
    draw(json.loads((folder / "results.json").read_text(encoding="utf-8")), folder / "verdict.png")


def draw(record: dict[str, Any], path: Path) -> None:
    baseline, *others = measured_precisions(record)
    figure = Figure(figsize=(9.6, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.3))
    draw_speeds(left, speeds(record), baseline, others)
    draw_accuracies(right, record, [baseline, *others])
    figure.suptitle(f"Does mixed precision pay on this machine? {record['device']}", fontsize=12, fontweight="bold")
    figure.savefig(path)


def measured_precisions(record: dict[str, Any]) -> list[str]:
    """Return the precisions in their order, each effective precision once: 16-mixed may run as bf16-mixed."""
    effective = {cell["precision"]: cell["effective"] for cell in record["cells"] if "effective" in cell}
    by_effective = {effective[name]: name for name in reversed(record["precisions"]) if name in effective}
    return [name for name in record["precisions"] if name in by_effective.values()]


def speeds(record: dict[str, Any]) -> dict[tuple[Setting, str], float]:
    """Return the speed against the baseline by setting and precision: the median of the rounds."""
    seconds: dict[tuple[Setting, str], dict[int, float]] = {}
    for cell in record["cells"]:
        if cell["kind"] == "speed" and "seconds" in cell:
            key = (Setting.of(cell["setting"]), cell["precision"])
            seconds.setdefault(key, {})[cell["number"]] = cell["seconds"]
    found = {}
    for (setting, precision), rounds in seconds.items():
        base = seconds.get((setting, record["precisions"][0]), {})
        if ratios := [base[turn] / rounds[turn] for turn in rounds if turn in base]:
            found[setting, precision] = statistics.median(ratios)
    return found


def draw_speeds(axes: Axes, found: dict[tuple[Setting, str], float], baseline: str, others: list[str]) -> None:
    settings = list(dict.fromkeys(setting for setting, _ in found))  # in the order of the axes
    thickness = 0.7 / max(len(others), 1)
    for index, precision in enumerate(others):
        heights = [found.get((setting, precision), np.nan) for setting in settings]
        offsets = np.arange(len(settings)) + (index - (len(others) - 1) / 2) * thickness
        bars = axes.bar(offsets, heights, 0.92 * thickness, color=COLORS[index + 1], label=precision)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
    axes.axhline(1, color=COLORS[0], linewidth=2, label=baseline)
    axes.text(len(settings) - 0.55, 1.02, "faster ↑", color=GRAY, ha="right", va="bottom")
    axes.text(len(settings) - 0.55, 0.98, "slower ↓", color=GRAY, ha="right", va="top")
    values = ["\n".join(value_text(value) for _, value in setting.values) for setting in settings]
    axes.set_xticks(range(len(settings)), values)
    names = "\n".join(short_names(settings[0].as_dict()).values())
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(names, (0, 0), (-4, -7), ha="right", va="top", color=GRAY, **place)
    axes.set(title=f"speed of a training step ({baseline} = 1)", ylim=(0, 1.25 * max(1.0, *found.values())))
    axes.legend(loc="upper left", ncols=4, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def draw_accuracies(axes: Axes, record: dict[str, Any], precisions: list[str]) -> None:
    for index, precision in enumerate(precisions):
        scores = [
            100 * cell["accuracy"]
            for cell in record["cells"]
            if cell["kind"] == "accuracy" and cell["precision"] == precision and "accuracy" in cell
        ]
        axes.plot([index] * len(scores), scores, "o", color=COLORS[index], alpha=0.7, markersize=8)
        axes.plot([index], [np.mean(scores)], "_", color="black", markersize=26)
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set(title="accuracy by seed, %", xlim=(-0.6, len(precisions) - 0.4))
    axes.margins(y=0.25)
    axes.yaxis.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
