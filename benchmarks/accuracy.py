"""Test accuracy of the default recipe over seeds, in the default precision and in fp32.

    python benchmarks/accuracy.py

Trains and tests with `mnist-amp`, as a user does, in a scratch folder; prints the table and saves it, with what it was
measured on, to docs/results/accuracy.json and accuracy.md. About 4 minutes on 2 CPU cores.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--precisions", nargs="+", default=["16-mixed", "32-true"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    parser.add_argument("fit_args", nargs="*", help="after --, passed on to `mnist-amp fit`")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            train_and_test(Path(scratch), precision, seed, args.fit_args)
            for seed in args.seeds
            for precision in args.precisions
        ]
    record = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv), "runs": runs}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "accuracy.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (args.results / "accuracy.md").write_text(table(record), encoding="utf-8")
    print(table(record))


def train_and_test(folder: Path, precision: str, seed: int, fit_args: list[str]) -> dict[str, Any]:
    """Run one fit and its test; return what the test recorded, in short."""
    command = [sys.executable, "-m", "mnist_amp"]
    settings = [f"--trainer.precision={precision}", f"--seed_everything={seed}", *fit_args]
    subprocess.run([*command, "fit", *settings], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "test"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    newest = max((folder / "lightning_logs").iterdir(), key=lambda run: int(run.name.removeprefix("version_")))
    tested = json.loads((newest / "test_best" / "metrics.json").read_text(encoding="utf-8"))
    print(f"seed {seed}, {precision}: {tested['accuracy']:.2%}", flush=True)
    kept = ("accuracy", "loss", "epochs", "precision", "device", "versions")
    return {"seed": seed, "requested_precision": precision, **{key: tested[key] for key in kept}}


def table(record: dict[str, Any]) -> str:
    """Lay the results out as Markdown: a row a precision, with mean and sample standard deviation over the seeds."""
    rows = [
        "| asked for | ran as | seeds | test accuracy, mean ± standard deviation | lowest to highest |",
        "|---|---|---|---|---|",
    ]
    runs = record["runs"]
    for precision in dict.fromkeys(run["requested_precision"] for run in runs):
        group = [run for run in runs if run["requested_precision"] == precision]
        scores = [100 * run["accuracy"] for run in group]
        spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
        rows.append(
            f"| {precision} | {group[0]['precision']} | {len(group)} | {statistics.mean(scores):.2f} ± {spread} % "
            f"| {min(scores):.2f} to {max(scores):.2f} % |"
        )
    versions = runs[0]["versions"]
    where = f"{runs[0]['device']}, torch {versions['torch']}, lightning {versions['lightning']}, {record['date']}"
    return "\n".join([*rows, "", f"Measured on: {where}. Command: `python benchmarks/accuracy.py`.", ""])


if __name__ == "__main__":
    main()
