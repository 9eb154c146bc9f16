"""Draw the verdict of a saved comparison as one chart: the speed of each precision, and what it does to the metric.

    python benchmarks/verdict_chart.py

Reads docs/results/compare-cpu-bf16/results.json, which `mnist-amp compare` wrote, and draws verdict.png beside it.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_amp.measuring.compare_records import Comparison, Setting, short_names, value_text
from mnist_amp.measuring.compare_rows import rows, scores

RESULTS = Path(__file__).parents[1] / "docs" / "results"
GRAY, COLORS = "#777777", ("#3f51b5", "#ff9800", "#4caf50", "#9c27b0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS / "compare-cpu-bf16", help="with results.json")
    folder = parser.parse_args().folder
    draw(Comparison.load(folder / "results.json"), folder / "verdict.png")


def draw(comparison: Comparison, path: Path) -> None:
    measured = [row for row in rows(comparison) if row.speeds]
    baseline, *others = dict.fromkeys(row.precision for row in measured)
    figure = Figure(figsize=(9.6, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.3))
    draw_speeds(left, {(row.setting, row.precision): row.speed for row in measured}, baseline, others)
    draw_scores(right, comparison, [baseline, *others])
    figure.suptitle(f"Does mixed precision pay on this machine? {comparison.device}", fontsize=12, fontweight="bold")
    figure.savefig(path)


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


def draw_scores(axes: Axes, comparison: Comparison, precisions: list[str]) -> None:
    factor, unit = (100, ", %") if comparison.metric.is_share else (1, "")
    for index, precision in enumerate(precisions):
        values = [factor * value for value in scores(comparison).get(precision, [])]
        axes.plot([index] * len(values), values, "o", color=COLORS[index], alpha=0.7, markersize=8)
        axes.plot([index], [np.mean(values)], "_", color="black", markersize=26)
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set(title=f"{comparison.metric.name} by seed{unit}", xlim=(-0.6, len(precisions) - 0.4))
    axes.margins(y=0.25)
    axes.yaxis.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
