"""Shared fixtures of the tests of inference: `predict` with the checkpoint of a short run, and its predictions."""

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mnist_amp.data import mnist
from tests.conftest import Run


@pytest.fixture
def predict(run: Run, kept: Path, checkpoint: dict[str, Any]) -> Run:
    """Run `predict` with the checkpoint of a short run, which guesses badly."""
    return functools.partial(run, "predict", f"--ckpt_path={kept}")


def rows(number: int = 0) -> list[dict[str, str]]:
    with Path(f"lightning_logs/predict/version_{number}/predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digits_of(data_dir: Path, count: int) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Return seeded test images and their digits."""
    images, digits = mnist.load(data_dir, train=False)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images[chosen].numpy(), digits[chosen]
