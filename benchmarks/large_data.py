"""Memory and time of `mnist-amp fit` with data sets of growing size: idx files, and a data set class.

    python benchmarks/large_data.py

Each run trains for an epoch in its own process. The idx files have grey images of 28 x 28, all zero and in the system's
cache, so their reading is that of memory. The class makes colour images of 224 x 224. The results are saved as
large-data in docs/results, by the kind of the machine. With the default sizes this needs 10 GB of free memory, and
takes about 10 minutes on 2 CPU cores.
"""

import argparse
import statistics
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from machine import MACHINE, RESULTS, keep
from mnist_amp.reporting.tables import markdown
from speed import in_pipe, last_number

FOLDER = Path(__file__).parent
GIGA = 10**9


class LargeImages:
    """Colour images (3, 224, 224) uint8 of two classes, each made when it is read.

    Args:
        root: unused; there are no files.
        train: whether these are the training images.
        size: the number of training images.
    """

    classes = ("even", "odd")

    def __init__(self, root: str, train: bool = True, size: int = 1000) -> None:
        self.size = size if train else 2

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 224, 224), index % 2 * 128, dtype=torch.uint8), index % 2


@dataclass(frozen=True)
class Kind:
    """A kind of data sets.

    Attributes:
        bytes: of an image.
        options: of the command. The network is so small that the images decide about time and memory.
    """

    bytes: int
    options: tuple[str, ...]


KINDS = {
    "idx files": Kind(28 * 28, ("--network.hidden_dim=8", "--data.batch_size=1024")),
    "a class": Kind(3 * 224 * 224, ("--network.hidden_dim=1", "--data.batch_size=64")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 2.0, 8.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    runs = []
    sizes = " ".join(f"{size:g}" for size in args.gigabytes)
    command = f"large_data.py --gigabytes {sizes} --rounds {args.rounds}"
    for turn in range(args.rounds):
        for kind in KINDS:
            for gigabytes in args.gigabytes:
                with tempfile.TemporaryDirectory() as folder:
                    runs.append({"kind": kind, "round": turn, **run(kind, gigabytes, Path(folder))})
                print(runs[-1], flush=True)
        keep(args.results / f"large-data-{MACHINE}.json", command, table, runs=runs)


def run(kind: str, gigabytes: float, folder: Path) -> dict[str, Any]:
    """Train for an epoch; return seconds of training and of the process, and the peak of its memory in bytes."""
    images = int(gigabytes * GIGA / KINDS[kind].bytes)
    if kind == "idx files":
        write_idx_files(folder / "idx", images)
        data = [f"--data.folder={folder / 'idx'}"]
    else:
        data = ["--data.dataset=large_data.LargeImages", f'--data.dataset_args={{"size": {images}}}']
    settings = ["--trainer.precision=32-true", "--trainer.max_epochs=1", f"--trainer.default_root_dir={folder}"]
    options = ["--config=guide.yaml", *KINDS[kind].options, *data, *settings]
    program = [sys.executable, "-m", "mnist_amp", "fit", *options]
    started = time.perf_counter()
    output, status, peak = in_pipe(program, FOLDER)
    process_seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(program)} ended with exit status {status}:\n{output}")
    seconds = images / last_number(r"([\d,]+) samples/s", output)
    waiting = last_number(r"([\d.]+)% (?:of it|spent) waiting for data", output) / 100
    found = {"images": images, "bytes": images * KINDS[kind].bytes, "seconds": seconds, "data_share": waiting}
    return {**found, "process_seconds": process_seconds, "peak_bytes": peak}


def write_idx_files(folder: Path, images: int) -> None:
    """Write idx files of images that are zero, which take no place on the disk, and labels 0 and 1."""
    folder.mkdir()
    for name, number in (("train", images), ("t10k", 2)):
        labels = (torch.arange(number) % 2).to(torch.uint8).numpy().tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, number) + labels)
        header = struct.pack(">HBB3I", 0, 8, 3, number, 28, 28)
        with (folder / f"{name}-images-idx3-ubyte").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + number * 28 * 28)


def table(record: dict[str, Any]) -> str:
    """Return a Markdown table of medians, and what each gigabyte adds."""
    head = ["data", "images", "size", "training, µs per image", "waiting for data"]
    head += ["start-up and reading, s", "peak memory"]
    lines, slopes = [], []
    for kind in dict.fromkeys(run["kind"] for run in record["runs"]):
        rows = medians([run for run in record["runs"] if run["kind"] == kind])
        for size, row in rows.items():
            cost = row["seconds"] / row["images"] * 1e6
            cells = [kind, f"{row['images']:,.0f}", f"{size / GIGA:.1f} GB", f"{cost:.1f}", f"{row['data_share']:.0%}"]
            lines.append([*cells, f"{row['start']:.1f}", f"{row['peak_bytes'] / GIGA:.2f} GB"])
        small, large = min(rows), max(rows)
        grown = {name: (rows[large][name] - rows[small][name]) / (large - small) for name in ("start", "peak_bytes")}
        slopes.append(f"{kind}: {grown['peak_bytes']:.2f} GB of memory and {grown['start'] * GIGA:.1f} s of reading")
    rounds = 1 + max(run["round"] for run in record["runs"])
    return (
        f"{markdown([head, *lines])}\n\nEach GB of images adds, from the smallest to the largest set, for "
        f"{'; for '.join(slopes)}.\n"
        f"Medians of {rounds} interleaved rounds on: {record['device']}, torch {record['versions']['torch']}, "
        f"{record['date']}.\n`{record['command']}`\n"
    )


def medians(runs: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Return the medians of runs by the size of the data in bytes; `start` are the seconds before the training."""
    found = {}
    for size in sorted({run["bytes"] for run in runs}):
        group = [{**run, "start": run["process_seconds"] - run["seconds"]} for run in runs if run["bytes"] == size]
        names = ("images", "seconds", "data_share", "start", "peak_bytes")
        found[size] = {name: statistics.median(run[name] for run in group) for name in names}
    return found


if __name__ == "__main__":
    main()
