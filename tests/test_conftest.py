"""The marks of the tests: what `drawn` changes about the plots of a run, and which tests `cuda` skips."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image


def saved(path: Path) -> Path:
    """Save a plot of 3 x 2 inches at 100 dots per inch."""
    Figure(figsize=(3, 2), dpi=100).savefig(path)
    return path


@pytest.mark.drawn
@pytest.mark.usefixtures("run")
def test_a_test_marked_drawn_gets_plots_from_matplotlib(tmp_path: Path) -> None:
    with Image.open(saved(tmp_path / "plot.png")) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (300, 200))


@pytest.mark.usefixtures("run")
def test_any_other_test_gets_a_stand_in(tmp_path: Path) -> None:
    assert Image.open(saved(tmp_path / "plot.png")).size == (1, 1)


def test_without_a_run_matplotlib_draws(tmp_path: Path) -> None:
    assert Image.open(saved(tmp_path / "plot.png")).size == (300, 200)


@pytest.mark.cuda
def test_a_test_marked_cuda_runs_on_a_cuda_device_only() -> None:
    assert torch.cuda.is_available()


def test_no_test_skips_itself_without_a_cuda_device() -> None:
    """`pytest -m cuda` would not select it."""
    own = re.compile(r"skipif\(\s*not torch\.cuda")
    assert [path.name for path in Path(__file__).parent.rglob("*.py") if own.search(path.read_text("utf-8"))] == []
