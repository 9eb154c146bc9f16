"""What mixed precision does on this machine: `mnist-amp compare` and `mnist-amp profile`, and a bare loop beside them.

    python benchmarks/precision.py

First it runs the two commands. Then it takes the speed of half precision against float32 from a bare PyTorch loop, the
floor of `benchmarks/contenders.py`, and from what `compare` measures with, in interleaved rounds, each in a process of
its own. All goes to docs/results, with `-cpu` or `-cuda` in its name. About 11 minutes on 2 CPU cores.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import contenders
from mnist_amp.data import mnist
from mnist_amp.measuring.compare import PRECISIONS
from mnist_amp.measuring.fit_measurements import measure_speed
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.reporting.text import markdown
from speed import DEVICE, HALF, RESULTS, keep

SETTINGS = ((128, 64), (2048, 512))  # hidden_dim and batch size
BOTH = ("32-true", HALF)
SECONDS = 2.0  # that compare measures a step for
LATE = 4300  # steps: the guide's five epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["ratio", "compare", "profile"], nargs="+", help="by default all three")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    only = args.only or ["ratio", "compare", "profile"]
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder, "data"))
        if "compare" in only:
            keep_compare(report("compare", Path(folder)), args.results)
        if "profile" in only:
            keep_profile(report("profile", Path(folder)), args.results)
            keep_gradients(report("profile", Path(folder), f"--warmup={LATE}"), args.results)
        if "ratio" in only:
            ratios(args.rounds, Path(folder, "data"), args.results)


def ratios(rounds: int, data_dir: Path, results: Path) -> None:
    runs = []
    for turn in range(rounds):
        for hidden_dim, batch_size in SETTINGS:
            for precision in BOTH:
                cell = {"hidden_dim": hidden_dim, "batch_size": batch_size, "precision": precision, "round": turn}
                cell["bare"] = measure.isolated(bare, hidden_dim, batch_size, precision, str(data_dir))["seconds"]
                cell["compare"] = measure.isolated(compared, hidden_dim, batch_size, precision, str(data_dir))[
                    "seconds"
                ]
                print(cell, flush=True)
                runs.append(cell)
    keep(results / f"ratio-{DEVICE}.json", f"precision.py --only ratio --rounds {rounds}", ratio_table, runs=runs)


def bare(hidden_dim: int, batch_size: int, precision: str, data_dir: str) -> dict[str, Any]:
    """Return the seconds of a step of the floor, over an epoch."""
    settings = argparse.Namespace(device=DEVICE, hidden_dim=hidden_dim, batch_size=batch_size, precision=precision)
    settings.epochs, settings.data_dir = 1, Path(data_dir)
    _, seconds = contenders.floor(settings)
    return {"seconds": seconds / -(-mnist.TRAIN_SIZE // batch_size)}


def compared(hidden_dim: int, batch_size: int, precision: str, data_dir: str) -> dict[str, Any]:
    """Return the same as `compare` measures it."""
    own = {"model.hidden_dim": hidden_dim, "data.batch_size": batch_size, "data.data_dir": data_dir}
    own |= {"data.val_size": 0, "model.steps_per_execution": 50}
    return measure.speed({}, {**PRECISIONS[precision], **own}, SECONDS)


def medians(record: dict[str, Any]) -> list[dict[str, float]]:
    """Return, by setting, how many times as fast half precision is: medians of the rounds, of either way."""
    found = []
    for hidden_dim, batch_size in SETTINGS:
        runs = [run for run in record["runs"] if (run["hidden_dim"], run["batch_size"]) == (hidden_dim, batch_size)]
        full, half = ([run for run in runs if run["precision"] == precision] for precision in BOTH)
        speeds = {
            way: statistics.median(slow[way] / fast[way] for slow, fast in zip(full, half, strict=True))
            for way in ("bare", "compare")
        }
        found.append({"hidden_dim": hidden_dim, "batch_size": batch_size, **speeds})
    return found


def ratio_table(record: dict[str, Any]) -> str:
    head = ["hidden_dim", "batch", "a bare loop", "`mnist-amp compare`", "difference"]
    rows = [
        [
            *(str(found[key]) for key in ("hidden_dim", "batch_size")),
            *(f"{found[key]:.2f}" for key in ("bare", "compare")),
            f"{found['compare'] / found['bare'] - 1:+.0%}",
        ]
        for found in medians(record)
    ]
    rounds = len(record["runs"]) // len(SETTINGS) // len(BOTH)
    where = f"{record['device']}, torch {record['versions']['torch']}, {record['date']}"
    return (
        f"How many times as fast {HALF} is as float32:\n\n{markdown([head, *rows])}\n\n"
        f"Medians of {rounds} interleaved rounds on: {where}.\n`{record['command']}`\n"
    )


def report(command: str, folder: Path, *options: str) -> Path:
    """Run a command; returns the folder of its report."""
    program = [sys.executable, "-m", "mnist_amp", command, *options, f"--trainer.default_root_dir={folder}"]
    subprocess.run([*program, f"--data.data_dir={folder / 'data'}"], check=True)
    return max((folder / "lightning_logs" / command).glob("version_*"))


def keep_compare(folder: Path, results: Path) -> None:
    _, *sections = sections_of(folder)
    verdict = sections[0].partition("\n\n")[2]
    whole = "\n".join(part.replace("](", f"](results/compare-{DEVICE}/") for part in sections)
    (results / f"verdict-{DEVICE}.md").write_text(f"{verdict.strip()}\n{measured_on(folder)}", encoding="utf-8")
    (results / f"compare-{DEVICE}.md").write_text(plain(whole.partition("\n\n")[2]), encoding="utf-8")
    keep_files(folder, results / f"compare-{DEVICE}")


def keep_profile(folder: Path, results: Path) -> None:
    _, times, layers, *others = sections_of(folder)
    step = times.partition("\n\n")[2]
    text = plain(f"{step}\n{layers}") + measured_on(folder)
    (results / f"profile-{DEVICE}.md").write_text(text, encoding="utf-8")
    rest = "\n".join(others).replace("](", f"](results/profile-{DEVICE}/")
    (results / f"operations-{DEVICE}.md").write_text(plain(rest), encoding="utf-8")
    keep_files(folder, results / f"profile-{DEVICE}")


def keep_gradients(folder: Path, results: Path) -> None:
    """Keep what a profile late in training says of the gradients."""
    found = next(part for part in sections_of(folder) if "gradient values" in part).partition("\n\n")[2]
    text = found.replace("gradients.png", f"results/profile-{DEVICE}/gradients-late.png")
    (results / f"gradients-{DEVICE}.md").write_text(text.strip() + "\n" + measured_on(folder), encoding="utf-8")
    shutil.copyfile(folder / "gradients.png", results / f"profile-{DEVICE}" / "gradients-late.png")


def measured_on(folder: Path) -> str:
    """Return a line that says what a report's figures were measured on, and by which command."""
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    command = plain(record["command"] + " ").strip()
    return f"\nOn: {record['device']}, torch {record['versions']['torch']}, {record['date'][:10]}. `{command}`\n"


def sections_of(folder: Path) -> list[str]:
    """Return the sections of a report, with its heads one level further down."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    return re.split(r"^(?=##)", re.sub(r"^#", "##", text, flags=re.MULTILINE), flags=re.MULTILINE)


def plain(text: str) -> str:
    """Leave out what only this benchmark has given the command: the folders."""
    return re.sub(r" --(trainer\.default_root_dir|data\.data_dir)=\S+?(?=[ `\"\n])", "", text).strip() + "\n"


def keep_files(folder: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.suffix == ".png":
            shutil.copyfile(path, target / path.name)
        elif path.suffix == ".json":
            text = re.sub(r'"/[^"]*"', '""', path.read_text(encoding="utf-8"))  # paths of this machine
            (target / path.name).write_text(plain(text), encoding="utf-8")


if __name__ == "__main__":
    main()
