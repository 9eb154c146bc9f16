"""Kill runs at random moments, let them go on, and count those that end bit for bit as one that was left alone.

    python benchmarks/soak.py --kills 20

A run is killed with SIGKILL at a random moment after its start-up, goes on, is killed again, and so on until it ends.
Weights, optimizer, progress and random states are compared, and metrics.csv.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mnist_amp import runs

FIT = [sys.executable, "-m", "mnist_amp", "fit"]
SETTINGS = [
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=600", "--trainer.max_epochs=3"),
    *("--trainer.log_every_n_steps=7", "--trainer.accelerator=cpu"),
    "--checkpoint.every_n_train_steps=10",
]
OWN = {runs.CONFIG_KEY, runs.FOLDER_KEY}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*FIT, *SETTINGS], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        expected = newest(Path(folder))
    kills = ended = same = 0
    while kills < args.kills:
        with tempfile.TemporaryDirectory() as folder:
            # a run that has come to its end is not killed any more, and the last may be left to end
            while kills < args.kills and killed(Path(folder), moments):
                kills += 1
            subprocess.run(
                [*FIT, *start(Path(folder))], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            ended, same = ended + 1, same + identical(newest(Path(folder)), expected)
        print(f"{kills} kills, {ended} runs ended, {same} of them identical", flush=True)
    sys.exit(0 if same == ended else 1)


def start(folder: Path) -> list[str]:
    """Return how to go on in a folder, or how to begin if there is nothing to go on from."""
    return ["--ckpt_path=last"] if any(folder.glob("lightning_logs/*/checkpoints/last.ckpt")) else SETTINGS


def killed(folder: Path, moments: random.Random) -> bool:
    """Run until a random moment in what would be its training; returns whether it was killed before it ended."""
    process = subprocess.Popen([*FIT, *start(folder)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    while b"writes to" not in (line := process.stdout.readline()) and line:
        pass
    time.sleep(moments.uniform(0, 3))
    process.kill()
    return process.wait() == -signal.SIGKILL


def newest(folder: Path) -> dict[str, Any]:
    """Return the last checkpoint of the newest run, but for what says where it is, and the logged rows."""
    path = runs.resolve("last", folder, folder_means="last")
    checkpoint = {key: value for key, value in runs.read(path).items() if key not in OWN}
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
