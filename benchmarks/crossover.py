"""Where mixed precision pays for the networks of the package: a map over networks and batch sizes.

    python benchmarks/crossover.py

runs `mnist-amp compare` with the networks and the batch sizes as axes, and saves the map as crossover in docs/results,
by the kind of the machine. About 6 minutes on 2 CPU cores that do nothing else.
"""

import argparse
import statistics
from typing import Any

from machine import MACHINE, keep
from mnist_amp.measuring.compare_records import Comparison
from mnist_amp.measuring.compare_rows import Row, rows
from mnist_amp.measuring.verdict import classify
from mnist_amp.reporting.tables import markdown
from precision import add_folders, measured_here, place, run, working_folder

NETWORKS = ("SimpleNN", "WideMLP", "CNN", "ViT")
BATCH_SIZES = (16, 64, 256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=list(BATCH_SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    add_folders(parser)
    args = parser.parse_args()
    axes = f"{{network: [{', '.join(args.networks)}], data.batch_size: {args.batch_sizes}}}"
    options = ["--axes", axes, "--seeds", "0", "--rounds", str(args.rounds), "--seconds", "0.5"]
    with working_folder(args.folder) as folder:
        comparison = Comparison.load(run("compare", folder, *options) / "results.json")
    command = f"crossover.py --rounds {args.rounds}"
    found = speeds(rows(comparison), comparison.baseline)
    keep(args.results / f"crossover-{MACHINE}.json", command, table, **measured_here(), speeds=found)


def speeds(measured: list[Row], baseline: str) -> list[dict[str, Any]]:
    """Return the rounds of each precision against the baseline, by network and batch size."""
    return [
        {"network": row.setting["network"], "batch_size": row.setting["data.batch_size"], "precision": row.precision}
        | {"speeds": row.speeds}
        for row in measured
        if row.speeds and row.precision != baseline
    ]


def table(record: dict[str, Any]) -> str:
    """Return the map; a speed is bold if it is above 1 by more than noise."""
    found = {(cell["precision"], cell["network"], cell["batch_size"]): cell["speeds"] for cell in record["speeds"]}
    sizes = sorted({size for _, _, size in found})
    parts = []
    for precision in dict.fromkeys(name for name, _, _ in found):
        head = ["network", *(f"batch {size:,}" for size in sizes)]
        networks = dict.fromkeys(network for name, network, _ in found if name == precision)
        lines = [[net, *(text(found.get((precision, net, size), [])) for size in sizes)] for net in networks]
        parts.append(f"Speed of {precision} (32-true = 1), bold where it is faster:\n\n{markdown([head, *lines])}")
    rounds = max(map(len, found.values()))
    return "\n\n".join(parts) + f"\n\nMedians of {rounds} rounds on: {place(record)}.\n`{record['command']}`\n"


def text(speeds: list[float]) -> str:
    if not speeds:
        return "-"
    middle = f"{statistics.median(speeds):.2f}"
    return f"**{middle}**" if classify(speeds) == "faster" else middle


if __name__ == "__main__":
    main()
