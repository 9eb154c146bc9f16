"""Accuracy on photographs of one person's digits, before and after a network is trained on some of them.

    python benchmarks/own_photographs.py

Trains the default network, and takes the steps of docs/photographs.md: photographs of digits in one hand, in folders by
digit, are read with `predict --images --save_images`, the images with a note are moved to the folders of their digits,
`fit --weights best` trains on all of them, and other photographs of the same hand are read. The photographs are drawn;
the hand slants to the left, with a long upstroke of the 1, a crossed 7, an open 4 and a loop in the 2. Saves the
accuracies with the environment to docs/results/own-photographs.json and own-photographs.md. About 5 minutes on 2 CPU
cores.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import photograph_marks as marks
import photograph_scenes as scenes
import photograph_sets as sets
from machine import RESULTS, keep
from mnist_amp.reporting.tables import markdown
from mnist_amp.runs import folders
from photograph_scenes import Draw, Plane
from strokes import STROKES, Stroke, arc

TAKEN = (50, 100, 200)  # photographs to learn from
HELD_OUT = 500  # other photographs of the same hand
HAND: dict[int, list[Stroke]] = {
    **STROKES,
    0: [arc((0.5, 0.5), (0.26, 0.26), -60, -430)],
    1: [[(0.22, 0.66), (0.56, 0.16), (0.56, 0.16), (0.52, 0.84)]],
    2: [
        [
            *arc((0.48, 0.34), (0.2, 0.18), -165, 60),
            (0.3, 0.76),
            *arc((0.35, 0.74), (0.1, 0.09), 140, -100),
            (0.8, 0.72),
        ]
    ],
    3: [[(0.28, 0.18), (0.72, 0.18), (0.72, 0.18), (0.46, 0.44), *arc((0.45, 0.64), (0.25, 0.2), -80, 150)]],
    4: [[(0.4, 0.14), (0.24, 0.6), (0.24, 0.6), (0.8, 0.58)], [(0.62, 0.4), (0.56, 0.88)]],
    6: [[(0.74, 0.12), *arc((0.48, 0.7), (0.22, 0.15), 190, -150)]],
    7: [[(0.24, 0.28), (0.28, 0.18), (0.76, 0.18), (0.76, 0.18), (0.46, 0.86)], [(0.32, 0.54), (0.74, 0.5)]],
    9: [[*arc((0.48, 0.34), (0.2, 0.18), 0, -360), (0.66, 0.7), *arc((0.46, 0.72), (0.2, 0.15), 0, 150)]],
}
SLANT = -0.35  # of the hand: how far to the right the top of a digit is, as a share of its height
WAYS = {
    "beside MNIST": ("--optimizer.lr=3e-4", "--data.extra_folder"),
    "alone": (
        *("--optimizer.lr=3e-4", "--trainer.max_epochs=20", "--data.batch_size=16", "--data.val_size=0"),
        "--data.folder",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the photographs; 0 is for the saved results")
    parser.add_argument("--held_out", type=int, default=HELD_OUT, help="number of photographs that are held out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        take(root / "held_out", args.held_out, seed=[args.seed, 0])
        command("fit", cwd=root)
        before = scores(root)
        rows = [learned(root, count, args.seed) for count in TAKEN]
    metrics = {"held_out": args.held_out, "seed": args.seed, "before": before, "after": rows}
    keep(args.results / "own-photographs.json", "own_photographs.py", table, **metrics)


def command(*args: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-m", "mnist_amp", *args], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def take(folder: Path, count: int, seed: list[int]) -> None:
    """Write photographs of all digits in turn, in folders by digit."""
    for index in range(count):
        draw, digit = np.random.default_rng([*seed, index]), index % 10
        path = folder / str(digit) / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet = scenes.blank(draw, sets.shape_of(draw))
        ink = sets.placed(draw, written(draw, digit), sheet.shape[:2])
        scenes.photograph(draw, scenes.handwritten(draw, sheet, ink)).save(path, quality=sets.QUALITY)


def written(draw: Draw, digit: int) -> Plane:
    """Write a digit in the hand, each time a little differently in slant, shape, size and width of the pen."""
    size, slant = int(draw.integers(110, 220)), SLANT + draw.normal(0, 0.08)
    turn = np.array([[1, -slant], [draw.normal(0, 0.09), 1]]) * np.exp(draw.normal(0, 0.1, (2, 1)))
    strokes = [
        marks.rounded((np.array(stroke) - 0.5 + draw.normal(0, 0.012, 2)) @ turn.T + 0.5) for stroke in HAND[digit]
    ]
    ink = np.pad(marks.penned(strokes, size, size * draw.uniform(0.04, 0.08)), size // 5)
    return marks.cropped(marks.bent(draw, ink, size))


def scores(root: Path) -> dict[str, float]:
    """Return the accuracy of the newest run on the photographs that are held out and on MNIST's test images."""
    command("test", "--data.folder=null", cwd=root)  # on those of MNIST, also after a training without it
    newest = next(folders.run_dirs(root))
    tested = json.loads((newest / "test_best" / "metrics.json").read_text(encoding="utf-8"))
    command("predict", "--images", "held_out", cwd=root)
    guesses: dict[str, str] = defaultdict(str)
    for row in predictions(root):
        guesses[row["file"]] += row["guess"]
    right = sum(guess == Path(file).parent.name for file, guess in guesses.items())
    return {"own": right / len(guesses), "mnist": tested["accuracy"]}


def predictions(root: Path) -> list[dict[str, str]]:
    path = next(folders.run_dirs(root, "predict")) / "predictions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def learned(root: Path, count: int, seed: int) -> dict[str, Any]:
    """Take photographs, save what the first run sees in them, train on it, and return the accuracies."""
    taken, saved = root / f"taken-{count}", root / f"digits-{count}"
    take(taken, count, seed=[seed, count])
    first = root / "lightning_logs" / "version_0"
    command("predict", f"--ckpt_path={first}", "--images", taken.name, f"--save_images={saved.name}", cwd=root)
    checked = check(root, saved)
    found: dict[str, Any] = {"taken": count, "checked": checked, "learned": len(list(saved.rglob("*.png")))}
    for way, options in WAYS.items():
        command("fit", f"--weights={first}", *options, saved.name, cwd=root)
        found[way] = scores(root)
    return found


def check(root: Path, saved: Path) -> int:
    """Move the images with a note to the folders of their digits, as a person would; return how many there are.

    The name of an image begins with its row in `predictions.csv`. Of an image in which several digits were found
    (`-d2`), none is taken.
    """
    rows = predictions(root)
    noted = sorted(saved.with_name(f"{saved.name}_check").rglob("*.png"))
    for path in noted:
        if not re.search(r"-d\d+$", path.stem):
            path.rename(saved / Path(rows[int(path.name[:4]) - 1]["file"]).parent.name / path.name)
    return len(noted)


def table(record: dict[str, Any]) -> str:
    """Return the Markdown table."""
    before = record["before"]
    rows = [["none: the default run", "-", f"{before['own']:.1%}", f"{before['mnist']:.2%}"]]
    for row in record["after"]:
        for way in WAYS:
            found = row[way]
            rows.append([f"{row['taken']}, {way}", str(row["checked"]), f"{found['own']:.1%}", f"{found['mnist']:.2%}"])
    where = f"{record['device']}, torch {record['versions']['torch']}, {record['date']}"
    head = [
        "trained on photographs",
        "with a note, checked by hand",
        f"{record['held_out']} other photographs",
        "MNIST's test images",
    ]
    return "\n".join([markdown([head, *rows]), "", f"On: {where}. `{record['command']}`", ""])


if __name__ == "__main__":
    main()
