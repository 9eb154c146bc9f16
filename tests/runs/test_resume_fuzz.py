"""Runs that are cut off and resumed with other settings, drawn at random, against a loop of plain PyTorch."""

import random
from pathlib import Path

import pytest

import resume_fuzz
from mnist_amp.data.loader import Batch
from tests.conftest import Run


@pytest.fixture(scope="module")
def epochs() -> list[Batch]:
    return resume_fuzz.images_of_epochs()


@pytest.mark.parametrize("seed", range(20))
def test_a_pair(run: Run, epochs: list[Batch], seed: int) -> None:
    """The fixture `run` makes the folder."""
    outcome = resume_fuzz.run_pair(random.Random(seed), epochs)
    assert Path("lightning_logs/version_1").exists() == (not outcome.startswith("refused"))
