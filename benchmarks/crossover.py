"""Where mixed precision pays for the networks of the package: a map over networks and batch sizes.

    python benchmarks/crossover.py

runs `mnist-amp compare` with the networks and the batch sizes as axes, and saves the map as crossover in docs/results,
by the kind of the machine. About 6 minutes on 2 CPU cores that do nothing else.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import MACHINE, RESULTS, keep
from mnist_amp.data import mnist
from mnist_amp.measuring.compare_records import Comparison
from mnist_amp.measuring.compare_rows import Row, rows
from mnist_amp.measuring.verdict import classify
from mnist_amp.reporting.tables import markdown
from precision import measured_here, place

NETWORKS = ("SimpleNN", "WideMLP", "CNN", "ViT")
BATCH_SIZES = (16, 64, 256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=list(BATCH_SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    axes = f"{{network: [{', '.join(args.networks)}], data.batch_size: {args.batch_sizes}}}"
    options = ["--axes", axes, "--seeds", "0", "--rounds", str(args.rounds), "--seconds", "0.5"]
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(options, Path(folder))
    command = f"crossover.py --rounds {args.rounds}"
    found = speeds(rows(comparison), comparison.baseline)
    keep(args.results / f"crossover-{MACHINE}.json", command, table, **measured_here(), speeds=found)


def compare(options: list[str], folder: Path) -> Comparison:
    mnist.prepare(folder / "data")
    program = [sys.executable, "-m", "mnist_amp", "compare", *options, f"--trainer.default_root_dir={folder}"]
    subprocess.run([*program, f"--data.data_dir={folder / 'data'}"], check=True)
    return Comparison.load(max((folder / "lightning_logs" / "compare").glob("version_*")) / "results.json")


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
