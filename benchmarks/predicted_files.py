"""The predictions of `mnist-amp predict --images` for files, as benchmarks count them."""

import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mnist_amp.runs import folders

SURE = 0.8  # probability from which on a guess without a note is sure


class Reading(NamedTuple):
    """The predictions for a file: those of all digits that were found in it, in reading order.

    Attributes:
        file: its path.
        guess: the digits; empty if none was found.
        probability: of the digit that is least probable.
        notes: of all digits, and of what is no digit.
    """

    file: Path
    guess: str
    probability: float
    notes: tuple[str, ...]

    @property
    def sure(self) -> bool:
        return bool(self.guess) and self.probability >= SURE and not self.notes


def command(*args: str, cwd: Path) -> None:
    """Run a command of mnist-amp, which must succeed."""
    subprocess.run([sys.executable, "-m", "mnist_amp", *args], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def predicted(root: Path, names: list[str], *options: str) -> list[Reading]:
    """Predict the images of folders, with the newest run beside them unless the options name a checkpoint."""
    command("predict", "--images", *names, *options, cwd=root)
    newest = next(folders.run_dirs(root, "predict"))
    with (newest / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return readings(csv.DictReader(file))


def readings(rows: Iterable[dict[str, str]]) -> list[Reading]:
    """Return the predictions for each file in the order of the names, from a row for each digit."""
    by_file = defaultdict(list)
    for row in rows:
        by_file[row["file"]].append(row)
    return [_reading(Path(file), found) for file, found in sorted(by_file.items())]


def _reading(file: Path, rows: list[dict[str, str]]) -> Reading:
    probabilities = [float(row["probability"]) for row in rows if row["guess"]]
    notes = tuple(row["note"] for row in rows if row["note"])
    return Reading(file, "".join(row["guess"] for row in rows), min(probabilities, default=0.0), notes)
