"""examples/own_project, copied out of the clone: the commands of its page, with mnist-amp installed from the clone.

Torch and the other dependencies are those of this environment: pip finds them in PYTHONPATH, and gets no package index.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import files
from tests.integrations.packages import needs
from tests.project.documents import ROOT, blocks

needs("hatchling")  # builds both packages

pytestmark = pytest.mark.xdist_group("own_project")  # its commands run once

PROJECT = ROOT / "examples" / "own_project"
FILES = (
    "Makefile",
    "configs/compare.yaml",
    "configs/fit.yaml",
    "pyproject.toml",
    "shapes/__init__.py",
    "shapes/dataset.py",
    "shapes/network.py",
    "tests/test_shapes.py",
)
IN_A_CLONE = ("LICENSE", "README.md", "configs", "examples", "pyproject.toml", "src")
MADE = shutil.ignore_patterns(".venv", "__pycache__", "lightning_logs")
QUICK = {"make compare": ["ARGS=--seconds 0.01 --rounds 1 --seeds 0 --axes {}"]}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the commands of docs/own-project.md in a copy of the clone; return the output of each."""
    folder = clone(tmp_path_factory.mktemp("own_project") / "mnist-amp")
    ((_, text),) = blocks("docs/own-project.md", "sh")
    outputs = {}
    for line in text.splitlines():
        if line.startswith("cd "):
            folder = (folder / line.removeprefix("cd ")).resolve()
        else:
            outputs[line] = output([*line.split(), *QUICK.get(line, [])], folder)
    where = "import mnist_amp; print(mnist_amp.__file__)"
    outputs["where"] = output([".venv/bin/python", "-c", where], folder).strip()
    outputs["folder"] = str(folder)
    return outputs


def clone(folder: Path) -> Path:
    folder.mkdir()
    for name in IN_A_CLONE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=MADE)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def output(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """Return that of a user, without the variables of a `make` that runs these tests."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return {
        **kept,
        "MNIST_AMP_TRAINER__ACCELERATOR": "cpu",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PIP_NO_BUILD_ISOLATION": "0",  # without isolation: old versions of pip take nothing but 0
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }


def test_uses_the_installed_package(printed: dict[str, str]) -> None:
    installed = Path(printed["where"])
    assert installed.is_relative_to(Path(printed["folder"], ".venv", "lib"))
    assert installed.parts[-3:] == ("site-packages", "mnist_amp", "__init__.py")


def test_fit(printed: dict[str, str]) -> None:
    assert "network    ShapesNet (width 16), 14,195 parameters\n" in printed["make fit"]
    assert "data       shapes.dataset.Shapes, images of 3 x 32 x 32 in 3 classes\n" in printed["make fit"]
    assert " of 3,000 images\n" in printed["make fit"]


def test_compare(printed: dict[str, str]) -> None:
    assert "\nWith ShapesNet (width 16) on CPU " in printed["make compare"]
    assert "files  lightning_logs/compare/version_0/ (" in printed["make compare"]


def test_its_own_tests(printed: dict[str, str]) -> None:
    assert "collected 2 items\n" in printed["make test"]
    assert " 2 passed in " in printed["make test"]


def test_is_as_short_as_its_page_states() -> None:
    lines = [
        line for name in FILES for line in (PROJECT / name).read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    assert len(lines) == 80


def test_has_only_what_a_project_needs() -> None:
    # others are made by the commands: .venv/, lightning_logs/, caches
    made = re.compile(r"(.*/)?(\.|lightning_logs/|data/|__pycache__/)")
    assert {name for name in files(PROJECT) if not made.match(name)} == set(FILES)
