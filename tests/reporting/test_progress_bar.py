"""The progress bar, in a terminal of its own."""

import os
import pty
import re
import sys
import termios
from pathlib import Path


def in_terminal(*args: str, cwd: Path, columns: int) -> list[str]:
    """Run `mnist-amp` in a terminal so wide, which must end well; returns what is on the screen at the end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        termios.tcsetwinsize(0, (24, columns))
        os.execv(sys.executable, [sys.executable, "-m", "mnist_amp", *args])
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:  # the command has closed its end
        pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, output.decode()
    return screen(output.decode())


def screen(output: str) -> list[str]:
    """Return the lines that a terminal shows of this, by what tqdm writes: line feeds, returns, one line up."""
    lines, row = [""], 0
    for part in re.split(r"(\n|\r|\x1b\[A)", output):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[A":
            row -= 1
        elif part not in ("", "\r"):
            lines[row] = part + lines[row][len(part) :]
    return lines


def test_in_a_terminal(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=smoke.yaml", "--trainer.max_epochs=2", f"--data.data_dir={data_dir}")
    shown = in_terminal("fit", *arguments, cwd=tmp_path, columns=100)
    bars = [line for line in shown if "it/s" in line]
    assert len(bars) == 2
    for epoch, bar in enumerate(bars):
        assert re.match(rf"Epoch {epoch}: 100%\|█+\| (\d+)/\1 .*loss=[\d.]+, val_loss=[\d.]+, val_accuracy=[\d.]+", bar)
        assert len(bar) <= 100
