"""The start and the end of the interpreter: what is collected, what is closed, and the exit status."""

import gc
import importlib
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mnist_amp import interpreter


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("quick", [True, False])
def test_the_collector_pauses(enabled: bool, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "ends_quickly", quick)
    frozen = gc.get_freeze_count()
    try:
        if not enabled:
            gc.disable()
        with pytest.raises(ImportError, match="not_a_package"):
            _import(interpreter.uncollected(), "not_a_package")
        assert gc.isenabled() == enabled
        assert (gc.get_freeze_count() > frozen) == quick
    finally:
        gc.unfreeze()
        gc.enable()


def _import(context: AbstractContextManager[None], name: str) -> None:
    with context:
        assert not gc.isenabled()
        importlib.import_module(name)


def ended(program: str, cwd: Path, stdout: str = "out") -> tuple[int, str, str]:
    """Run a program that ends by `quick_exit`, and return its exit status, and the ends of its stdout and stderr."""
    begin = "import atexit, sys, threading, time\nfrom mnist_amp.interpreter import quick_exit\n"
    command = [sys.executable, "-c", f"{begin}{program}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with (cwd / stdout).open("w") as file:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=file, stderr=subprocess.PIPE, text=True)
    return done.returncode, (cwd / "out").read_text() if stdout == "out" else "", done.stderr


@pytest.mark.parametrize(
    ("body", "status", "last_line"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('why')", 1, "why\n"),
        ("raise ValueError('why')", 1, "ValueError: why\n"),
        ("sys.exit(-1)", 255, ""),
    ],
)
def test_exit_status(tmp_path: Path, body: str, status: int, last_line: str) -> None:
    found = ended(f"with quick_exit():\n    print('printed')\n    {body}\n", tmp_path)
    assert (found[0], found[1]) == (status, "printed\n")
    assert found[2].endswith(last_line)
    assert bool(found[2]) == bool(last_line)


LEFT_OPEN = """
class Left:
    def __init__(self, name):
        self.me, self.name = self, name
        self.file = open(name, "w")
        self.file.write(name)
    def __del__(self):
        print(f"{self.name} is collected")

def late():
    time.sleep(0.2)
    print("the thread has ended")

with quick_exit():
    atexit.register(print, "atexit")
    kept = Left("kept")
    Left("dropped")
    with open("closed", "w") as closed:
        closed.write("closed")
    threading.Thread(target=late).start()
    sys.stdout.write("printed\\n")
"""


def test_a_quick_exit_leaves_nothing_unwritten(tmp_path: Path) -> None:
    assert ended(LEFT_OPEN, tmp_path) == (
        0,
        "printed\nthe thread has ended\natexit\ndropped is collected\n",  # the modules, with `kept`, are left alone
        "",
    )
    for name in ("kept", "dropped", "closed"):
        assert (tmp_path / name).read_text() == name


# otherwise packages would report them as leaked
@pytest.mark.parametrize(("body", "printed"), [("sys.exit('why')", "frozen: 0\n"), ("sys.exit(1)", "")])
def test_a_usual_end_finds_no_frozen_objects(tmp_path: Path, body: str, printed: str) -> None:
    program = f"""
import gc
from mnist_amp.interpreter import uncollected
class Kept:
    def __del__(self):
        print(f"frozen: {{gc.get_freeze_count()}}")
kept = Kept()
kept.me = kept
with quick_exit():
    with uncollected():
        pass
    {body}
"""
    assert ended(program, tmp_path)[1] == printed


def test_the_interpreter_reports_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    status, _, reported = ended("with quick_exit():\n    print('printed')\n", tmp_path, stdout="full")
    assert status == 120  # Python's, for a stdout that can't be flushed at the end
    assert "No space left on device" in reported
