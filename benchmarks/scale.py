"""How the cost of `mnist-amp fit` grows: with epochs, with images, with processes.

    python benchmarks/scale.py

Runs each fit of a list in its own process, in interleaved rounds, in a temporary folder. Saves all runs to
docs/results/scale-cpu.json (or scale-cuda.json), and the table beside it. About 7 minutes on 2 CPU cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from machine import DEVICE, MACHINE, RESULTS, keep
from mnist_amp.data import mnist
from speed import in_pipe, last_number

TWO = ("--config=ddp-cpu.yaml",) if DEVICE == "cpu" else ("--trainer.devices=2",)
ONE_PROCESS, TWO_PROCESSES = "4 epochs, one process with one thread", "4 epochs, two processes with one thread each"
# images, epochs, threads of each process, options
CASES: dict[str, tuple[int, int, int | None, tuple[str, ...]]] = {
    "1 epoch": (60_000, 1, None, ()),
    "4 epochs": (60_000, 4, None, ()),
    "16 epochs": (60_000, 16, None, ()),
    "4 epochs of 15,000 images": (15_000, 4, None, ()),
    "4 epochs of 30,000 images": (30_000, 4, None, ()),
    ONE_PROCESS: (60_000, 4, 1, ()),
    TWO_PROCESSES: (60_000, 4, 1, TWO),
}
FIXED = ("--config=fp32.yaml", "--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    has_two = DEVICE == "cpu" or torch.cuda.device_count() > 1
    cases = [name for name, (*_, options) in CASES.items() if has_two or options != TWO]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder, "data"))
        for seed in range(args.rounds):
            for name in cases:
                runs.append({"case": name, "seed": seed, **run(name, seed, Path(folder))})
                print(f"round {seed + 1} of {args.rounds}, {name}: {runs[-1]['seconds']:.2f} s", flush=True)
    keep(args.results / f"scale-{MACHINE}.json", f"scale.py --rounds {args.rounds}", table, runs=runs)


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train once, and return seconds of training, their share of waiting for data, and peak memory in bytes."""
    images, epochs, threads, options = CASES[name]
    settings = {"data.data_dir": folder / "data", "data.val_size": mnist.TRAIN_SIZE - images, "seed_everything": seed}
    settings |= {"trainer.max_epochs": epochs, "trainer.default_root_dir": folder}
    arguments = [*FIXED, *options, *(f"--{key}={value}" for key, value in settings.items())]
    env = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    output, status, peak = in_pipe([sys.executable, "-m", "mnist_amp", "fit", *arguments], folder, env)
    if status:
        sys.exit(f"{name} ended with exit status {status}:\n{output}")
    return {
        "seconds": images * epochs / last_number(r"([\d,]+) samples/s", output),
        "data_share": last_number(r"([\d.]+)% (?:of it|spent) waiting for data", output) / 100,
        "peak_bytes": peak,
    }


def table(record: dict[str, Any]) -> str:
    """Return a Markdown table: medians, and the time per image."""
    rows = [
        "| | training, s | µs per image | waiting for data | peak memory of a process |",
        "|---|---|---|---|---|",
    ]
    medians = {}
    for name in dict.fromkeys(run["case"] for run in record["runs"]):
        images, epochs, *_ = CASES[name]
        group = [run for run in record["runs"] if run["case"] == name]
        seconds, share, peak = (
            statistics.median(run[key] for run in group) for key in ("seconds", "data_share", "peak_bytes")
        )
        medians[name] = seconds
        cost = seconds / (images * epochs) * 1e6
        rows.append(f"| {name} | {seconds:.2f} | {cost:.1f} | {share:.1%} | {peak / 1e6:,.0f} MB |")
    one, *two = [medians[name] for name in (ONE_PROCESS, TWO_PROCESSES) if name in medians]
    text = "Two processes are {:.2f} times as fast as one process: an efficiency of {:.0%}."
    efficiency = [text.format(one / each, one / each / 2) for each in two]
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    rounds = len(record["runs"]) // len(medians)
    return "\n".join(
        [
            *rows,
            "",
            *efficiency,
            f"32-true, batches of 64, no validation; 60,000 images unless another number is given. Medians of {rounds} "
            f"interleaved rounds on: {record['device']}, {stack}, {record['date']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
