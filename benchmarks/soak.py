"""Kill runs at random moments, resume them, and count those that end bit for bit like an uninterrupted run.

    python benchmarks/soak.py --kills 20

Each run is killed with SIGKILL at a random moment after its start-up and resumed, up to 5 times, and then runs to its
end. Weights, optimizer, progress, random states and metrics.csv are compared. The runs take the settings of VARIANTS in
turn.
"""

import argparse
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from mnist_amp.runs import checkpoint_contents, checkpoint_files

FIT = [sys.executable, "-m", "mnist_amp", "fit"]
SETTINGS = [
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=600", "--trainer.max_epochs=3"),
    *("--trainer.log_every_n_steps=7", "--trainer.accelerator=cpu"),
    "--checkpoint.every_n_train_steps=10",
]
VARIANTS = {
    "plain": [],
    "accumulated gradients": ["--trainer.accumulate_grad_batches=3"],
    "fp16 with a GradScaler": ["--config=configs/fp16-cpu.yaml"],
    "validation within epochs": ["--trainer.val_check_interval=70"],
    "exponential average": ["--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.99"],
    "stochastic average": [
        *("--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"),
        "--trainer.callbacks.swa_epoch_start=2",
    ],
    "OneCycleLR, 5 steps per execution": [
        *("--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.01", "--lr_scheduler.total_steps=1800"),
        *("--model.lr_scheduler_interval=step", "--model.steps_per_execution=5"),
    ],
}
MOST = 5  # kills of a run, so that all variants have their turn
OWN = {checkpoint_contents.CONFIG_KEY, checkpoint_contents.FOLDER_KEY}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    expected = {name: uninterrupted([*SETTINGS, *more]) for name, more in VARIANTS.items()}
    counts = {name: Counter[str]() for name in VARIANTS}
    for name in itertools.cycle(VARIANTS):
        left = args.kills - sum(count["kills"] for count in counts.values())
        if not left:
            break
        kills, found = soaked([*SETTINGS, *VARIANTS[name]], moments, min(left, MOST))
        counts[name].update(kills=kills, ended=1, same=int(identical(found, expected[name])))
        print(f"{name}: {summary(counts[name])}", flush=True)
    total = sum(counts.values(), Counter[str]())
    print(f"all: {summary(total)}")
    sys.exit(0 if total["same"] == total["ended"] else 1)


def summary(count: Counter[str]) -> str:
    return f"{count['kills']} kills, {count['ended']} runs ended, {count['same']} of them identical"


def uninterrupted(settings: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*FIT, *settings], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return newest(Path(folder))


def soaked(settings: list[str], moments: random.Random, most: int) -> tuple[int, dict[str, Any]]:
    """Kill and resume a run up to `most` times, and return the number of kills and its end."""
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        while kills < most and killed(Path(folder), settings, moments):
            kills += 1
        program = [*FIT, *start(Path(folder), settings)]
        subprocess.run(program, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return kills, newest(Path(folder))


def start(folder: Path, settings: list[str]) -> list[str]:
    """Return the arguments that resume the run of a folder, or start one if there is no checkpoint."""
    return ["--ckpt_path=last"] if any(folder.glob("lightning_logs/*/checkpoints/last.ckpt")) else settings


def killed(folder: Path, settings: list[str], moments: random.Random) -> bool:
    """Run until a random moment after the start-up, and return whether the run was killed before it ended."""
    program = [*FIT, *start(folder, settings)]
    process = subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    while b"writes to" not in (line := process.stdout.readline()) and line:
        pass
    time.sleep(moments.uniform(0, 3))
    process.kill()
    return process.wait() == -signal.SIGKILL


def newest(folder: Path) -> dict[str, Any]:
    """Return the last checkpoint of the newest run, without its paths, and the logged rows."""
    path = checkpoint_files.resolve("last", folder, folder_means="last")
    checkpoint = {key: value for key, value in checkpoint_files.read(path).items() if key not in OWN}
    return {**checkpoint, "rows": (path.parent.parent / "metrics.csv").read_text()}


def identical(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return expected.keys() == found.keys() and all(identical(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(identical, found, expected))
    return bool(found == expected)


if __name__ == "__main__":
    main()
