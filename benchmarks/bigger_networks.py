"""Training time of `mnist-amp fit` with bigger networks, compared with a bare PyTorch loop.

    python benchmarks/bigger_networks.py

Trains the CNN and the ViT on MNIST, and torchvision's ResNet-18 on random colour images of 32 x 32, for an epoch of
batches of 64. `mnist-amp fit` runs with its progress bar, logs and checkpoints, in a terminal. The bare loop
(`benchmarks/bare_networks.py`) runs in a process without Lightning; for the networks of convolutions, also with weights
and images in the memory format channels_last. Each run has its own process, and the contenders take turns. The results
are saved as bigger-networks in docs/results, by the kind of the machine. About 25 minutes on 2 CPU cores that do
nothing else.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare_networks
from machine import MACHINE, RESULTS, keep
from mnist_amp.data import mnist
from mnist_amp.reporting.tables import markdown
from speed import in_terminal, last_number

FOLDER = Path(__file__).parent
PRECISIONS = tuple(bare_networks.DTYPES)
BATCH_SIZE = 64
CLASSES = 10
NOISE = 0.2  # allowed relative difference of the mean losses


@dataclass(frozen=True)
class Case:
    """A network that both programs train.

    Attributes:
        options: of `mnist-amp fit`.
        images: the number of training images.
        layouts: whether the bare loop also runs with channels_last.
    """

    options: tuple[str, ...]
    images: int
    layouts: bool = False


CASES = {
    "CNN": Case(("--network=CNN",), mnist.TRAIN_SIZE, layouts=True),
    "ViT": Case(("--network=ViT",), mnist.TRAIN_SIZE),
    "ResNet-18": Case(
        ("--network=torchvision.models.resnet18", "--data.dataset=colour_images.ColourImages"), 10_000, layouts=True
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of a run; by default an epoch")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    runs = []
    command = f"bigger_networks.py --rounds {args.rounds}" + (f" --steps {args.steps}" if args.steps else "")
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder, "data"))
        for seed in range(args.rounds):
            for network in args.networks:
                for precision in args.precisions:
                    found = measure(network, precision, args.steps or steps_of_epoch(network), seed, Path(folder))
                    print(found, flush=True)
                    runs.append(found)
            keep(args.results / f"bigger-networks-{MACHINE}.json", command, table, runs=runs)
    check_losses(runs)


def steps_of_epoch(network: str) -> int:
    return -(-CASES[network].images // BATCH_SIZE)


def measure(network: str, precision: str, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the seconds of training and the mean losses of all contenders, in one round."""
    found: dict[str, Any] = {"network": network, "precision": precision, "seed": seed, "steps": steps}
    found["bare"] = bare(network, precision, steps, seed, folder)
    found["fit"] = fit(network, precision, steps, seed, folder)
    if CASES[network].layouts:
        found["channels_last"] = bare(network, precision, steps, seed, folder, "--channels_last")
    return found


def bare(network: str, precision: str, steps: int, seed: int, folder: Path, *options: str) -> dict[str, float]:
    settings = {"precision": precision, "steps": steps, "seed": seed, "batch_size": BATCH_SIZE}
    words = [network, *(f"--{name}={value}" for name, value in settings.items()), f"--data_dir={folder / 'data'}"]
    program = [sys.executable, bare_networks.__file__, *words, *options]
    found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert not found.pop("lightning")
    return dict(found)


def fit(network: str, precision: str, steps: int, seed: int, folder: Path) -> dict[str, float]:
    """Train by the command, with all images in the training set, and with progress bar, logs and checkpoints."""
    settings = {"trainer.precision": precision, "trainer.max_epochs": 1, "trainer.limit_train_batches": steps}
    settings |= {"data.batch_size": BATCH_SIZE, "data.data_dir": folder / "data", "seed_everything": seed}
    settings |= {"trainer.default_root_dir": folder}
    options = [*CASES[network].options, *(f"--{name}={value}" for name, value in settings.items())]
    # a process of Python finds ColourImages in its current folder
    program = [sys.executable, "-m", "mnist_amp", "fit", "--config=guide.yaml", *options]
    output, status, _ = in_terminal(program, FOLDER)
    if status:
        sys.exit(f"{' '.join(program)} ended with exit status {status}:\n{output}")
    images = min(steps * BATCH_SIZE, CASES[network].images)
    newest = max(folder.glob("lightning_logs/version_*/metrics.csv"), key=os.path.getmtime)
    with newest.open(encoding="utf-8") as file:
        losses = [row["train_loss"] for row in csv.DictReader(file) if row["train_loss"]]
    # the summary rounds seconds to tenths, but not samples per second
    return {"seconds": images / last_number(r"([\d,]+) samples/s", output), "loss": float(losses[-1])}


def check_losses(runs: list[dict[str, Any]]) -> None:
    """Exit with an error if a contender does not train, or not as the bare loop does."""
    for (network, precision), group in groups(runs).items():
        names = [name for name in ("bare", "fit", "channels_last") if name in group[0]]
        losses = {name: statistics.median(run[name]["loss"] for run in group) for name in names}
        if max(losses.values()) > math.log(CLASSES):
            sys.exit(f"{network} in {precision} does not train: the mean losses are {losses}.")
        if any(abs(loss / losses["bare"] - 1) > NOISE for loss in losses.values()):
            sys.exit(f"{network} in {precision}: the mean losses differ too much: {losses}.")


def groups(runs: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the runs by network and precision."""
    keys = dict.fromkeys((run["network"], run["precision"]) for run in runs)
    return {key: [run for run in runs if (run["network"], run["precision"]) == key] for key in keys}


def ratio(group: list[dict[str, Any]], name: str) -> str:
    """Return the median, minimum and maximum over the rounds of the time of a contender (bare loop = 1)."""
    if name not in group[0]:
        return "-"
    found = [run[name]["seconds"] / run["bare"]["seconds"] for run in group]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def table(record: dict[str, Any]) -> str:
    head = ["network", "precision", "steps", "bare loop, ms per step", "`mnist-amp fit` (bare loop = 1)"]
    head += ["bare loop with channels_last", "mean loss: bare loop, `fit`"]
    lines = []
    for (network, precision), group in groups(record["runs"]).items():
        seconds = statistics.median(run["bare"]["seconds"] for run in group)
        losses = [statistics.median(run[name]["loss"] for run in group) for name in ("bare", "fit")]
        cells = [network, precision, f"{group[0]['steps']:,}", f"{1e3 * seconds / group[0]['steps']:.1f}"]
        cells += [ratio(group, "fit"), ratio(group, "channels_last"), ", ".join(f"{loss:.3f}" for loss in losses)]
        lines.append(cells)
    rounds = len(group)
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    return (
        f"{markdown([head, *lines])}\n\nTime of training in batches of {BATCH_SIZE}: median (minimum to maximum) of "
        f"the ratios in {rounds} interleaved rounds on: {record['device']}, {stack}, {record['date']}.\n"
        f"`{record['command']}`\n"
    )


if __name__ == "__main__":
    main()
