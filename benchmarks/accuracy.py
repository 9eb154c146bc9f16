"""Test accuracy over seeds: the default recipe, the same in float32, the guide's 60,000 images, and torch alone.

    python benchmarks/accuracy.py

Trains and tests with `mnist-amp` in a temporary folder, as a user does. Prints the table, and saves it with the
environment to docs/results/accuracy.json and accuracy.md; on a GPU, with its name in theirs, and with the steps that
the loss scale has skipped. About 10 minutes on 2 CPU cores.
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

import torch

import contenders
from machine import DEVICE, MACHINE, RESULTS
from mnist_amp.data import mnist
from mnist_amp.data.normalization import Normalization
from mnist_amp.networks.simple_nn import SimpleNN

TORCH = "torch"
RECIPES = {
    "default": "fit",
    "float32": "fit --trainer.precision 32-true",
    "guide": "fit --config configs/guide.yaml",
    TORCH: "torch alone, 60,000 images",
}
NAME = "accuracy" if DEVICE == "cpu" else f"accuracy-{MACHINE}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in args.seeds:
        for recipe in args.recipes:
            runs.append(torch_alone(seed) if recipe == TORCH else fit_and_test(RECIPES[recipe], seed))
            print(f"seed {seed}, {runs[-1]['recipe']}: {runs[-1]['accuracy']:.2%}", flush=True)
        save(args.results, runs)  # each seed at once
    print(table(save(args.results, runs)))


def save(results: Path, runs: list[dict[str, Any]]) -> dict[str, Any]:
    record = {"date": datetime.date.today().isoformat(), "runs": runs}
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{NAME}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (results / f"{NAME}.md").write_text(table(record), encoding="utf-8")
    return record


def fit_and_test(command: str, seed: int) -> dict[str, Any]:
    """Run one fit and its test, and return some of the metrics of the test."""
    program = [sys.executable, "-m", "mnist_amp"]
    with tempfile.TemporaryDirectory() as folder:
        fit = [*program, *command.split(), f"--seed_everything={seed}"]
        subprocess.run(fit, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*program, "test"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder, "lightning_logs", "version_0")
        tested = (run / "test_best" / "metrics.json").read_text(encoding="utf-8")
        scaler = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True).get("MixedPrecision") or {}
    kept = ("accuracy", "loss", "epochs", "precision", "device", "versions")
    found = {"recipe": f"`mnist-amp {command}`", "seed": seed} | {key: json.loads(tested)[key] for key in kept}
    return found | ({"skipped_steps": scaler["skipped"]} if "skipped" in scaler else {})


def torch_alone(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mnist.prepare(root)  # or torchvision downloads the files
        options = ["bound", f"--seed={seed}", f"--data_dir={root}", f"--weights={root / 'model.pth'}", "--device=cpu"]
        subprocess.run([sys.executable, contenders.__file__, *options], check=True, stdout=subprocess.DEVNULL)
        accuracy = of_weights(root / "model.pth", root)
    return {"recipe": RECIPES[TORCH], "precision": "32-true", "seed": seed, "accuracy": accuracy}


def of_weights(weights: Path, data_dir: Path) -> float:
    """Return the accuracy (0 to 1) of saved weights of SimpleNN on the 10,000 test images, in float32 on the CPU."""
    images, labels = mnist.load(data_dir, train=False)
    state = torch.load(weights, weights_only=True)
    model = SimpleNN(len(state["fc1.bias"]))
    model.load_state_dict(state)
    with torch.no_grad():
        return float((model(Normalization()(images)).argmax(dim=1) == labels).float().mean())


def table(record: dict[str, Any]) -> str:
    """Return a Markdown table: a row for each recipe, with mean and sample standard deviation over the seeds."""
    rows = ["| recipe | ran as | seeds | test accuracy | min to max |", "|---|---|---|---|---|"]
    runs = record["runs"]
    for recipe in dict.fromkeys(run["recipe"] for run in runs):
        group = [run for run in runs if run["recipe"] == recipe]
        scores = [100 * run["accuracy"] for run in group]
        spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
        rows.append(
            f"| {recipe} | {group[0]['precision']} | {len(group)} | {statistics.mean(scores):.2f} ± {spread} % "
            f"| {min(scores):.2f} to {max(scores):.2f} % |"
        )
    device, versions = runs[0]["device"], runs[0]["versions"]
    where = f"{device}, torch {versions['torch']}, lightning {versions['lightning']}, {record['date']}"
    return "\n".join([*rows, "", *skipped_steps(runs), f"Mean ± standard deviation over the seeds, on: {where}.", ""])


def skipped_steps(runs: list[dict[str, Any]]) -> list[str]:
    """Return a line for each recipe whose gradients were scaled: how many steps were skipped, by seed."""
    counts: dict[str, list[str]] = {}
    for run in runs:
        if "skipped_steps" in run:
            counts.setdefault(run["recipe"], []).append(str(run["skipped_steps"]))
    text = "Steps that the scaler of {} skipped, by seed: {}.\n"
    return [text.format(recipe, ", ".join(found)) for recipe, found in counts.items()]


if __name__ == "__main__":
    main()
