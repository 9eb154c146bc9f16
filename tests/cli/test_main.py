"""Help, version and early mistakes: they are answered before torch and Lightning are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from mnist_amp import __version__
from tests.conftest import THEIRS, filled

# runs the command, and prints the slow packages that it has imported
PROGRAM = """
import sys
from mnist_amp.__main__ import main
try:
    main()
finally:
    slow = {"torch", "lightning", "torchvision", "matplotlib", "jsonargparse", "numpy"} & set(sys.modules)
    print(sorted(slow))
"""


COMMANDS = "fit, validate, test, predict, compare, profile, export, demo"


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (
            [],
            2,
            f"no command is given; the commands are {COMMANDS}. See mnist-amp --help.",
        ),
        (
            ["fitt"],
            2,
            f"there is no command fitt (did you mean fit?); the commands are {COMMANDS}. See mnist-amp --help.",
        ),
        (["--seed_everything=1", "fit"], 2, "options come after the command: mnist-amp fit --seed_everything=1"),
        (
            ["fit", "--config", "none.yaml"],
            2,
            "there is no config file none.yaml. Those of the package are bf16, cosine, csv, cuda, ddp-cpu, fast, "
            "fp16-cpu, fp16-cuda, fp32, guide, mlflow, overfit, profile, smoke, wandb (.yaml).",
        ),
        (["fit", "--config", "bad.yaml"], 2, f"bad.yaml:1:5: this is not YAML: {THEIRS}."),
    ],
)
def test_answers_without_slow_imports(tmp_path: Path, args: list[str], status: int, message: str) -> None:
    (tmp_path / "bad.yaml").write_text("a: b: c\n")
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == (filled(f"mnist-amp: error: {message}\n", done.stderr) if message else "")
    if args == ["--version"]:
        assert done.stdout.splitlines()[0] == f"mnist-amp {__version__}"


# runs the command, and prints what the garbage collector does about its imports
COLLECTED = """
import atexit, gc, sys
class Finder:
    def find_spec(self, found, path, target=None):
        if found in ("torch", "lightning.pytorch.cli"):
            print(f"{found}: {gc.isenabled()}")
sys.meta_path.insert(0, Finder())
from mnist_amp.__main__ import main
unfreeze = gc.unfreeze
def unfreeze_and_print():
    print(f"frozen: {gc.get_freeze_count() > 100_000}")
    unfreeze()
gc.unfreeze = unfreeze_and_print
atexit.register(lambda: print(f"ends: {gc.isenabled()}, {gc.get_freeze_count()}"))
sys.argv = ["mnist-amp", "validate", "--print_config"]
main()
"""


def test_the_imports_are_not_searched_for_garbage(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTED], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(("torch:", "lightning.pytorch.cli:", "frozen:", "ends:"))] == [
        *("torch: False", "lightning.pytorch.cli: False", "frozen: True", "ends: True, 0"),
    ]
