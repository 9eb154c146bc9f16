"""The network learns the shapes, and a resumed run is exact."""

import json
import subprocess
import sys
from pathlib import Path

import torch


def mnist_amp(command: str, folder: Path, *args: str) -> None:
    where = f"--trainer.default_root_dir={folder}"
    subprocess.run([sys.executable, "-m", "mnist_amp", command, where, *args], check=True)


def test_learns(tmp_path: Path) -> None:
    mnist_amp("fit", tmp_path, "--config=configs/fit.yaml")
    mnist_amp("test", tmp_path)
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["accuracy"] > 0.95


def test_resumed_run_is_exact(tmp_path: Path) -> None:
    mnist_amp("fit", tmp_path, "--config=configs/fit.yaml", "--trainer.max_epochs=2")
    mnist_amp("fit", tmp_path, "--config=configs/fit.yaml", "--trainer.max_epochs=1")
    mnist_amp("fit", tmp_path, "--ckpt_path=last", "--trainer.max_epochs=2")
    once, _, resumed = (torch.load(path) for path in sorted(tmp_path.rglob("last.ckpt")))
    torch.testing.assert_close(resumed["state_dict"], once["state_dict"], rtol=0, atol=0)
