"""The progress bar: in a terminal, in a pipe, and how often it is updated."""

import os
import pty
import re
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from mnist_amp.reporting import progress_bar
from mnist_amp.reporting.progress_bar import ProgressBar


def in_terminal(*args: str, cwd: Path, columns: int) -> list[str]:
    """Run `mnist-amp` in a terminal of this width; return the lines on its screen at the end. It must succeed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        termios.tcsetwinsize(0, (24, columns))
        os.execv(sys.executable, [sys.executable, "-m", "mnist_amp", *args])
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:  # the command has ended
        pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, output.decode()
    return screen(output.decode())


def screen(output: str) -> list[str]:
    """Return the lines that a terminal shows. It knows the control characters of tqdm: line feed, return, line up."""
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


def test_in_a_terminal_the_bar_of_each_epoch_stays(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--config=smoke.yaml", "--trainer.max_epochs=2", f"--data.data_dir={data_dir}")
    shown = in_terminal("fit", *arguments, cwd=tmp_path, columns=100)
    bars = [line for line in shown if "it/s" in line]
    assert len(bars) == 2
    for epoch, bar in enumerate(bars):
        assert re.match(rf"Epoch {epoch}: 100%\|█+\| (\d+)/\1 .*loss=[\d.]+, val_loss=[\d.]+, val_accuracy=[\d.]+", bar)
        assert len(bar) <= 100


METRICS = {"train_loss_step": 0.14712, "train_loss": 0.2, "v_num": 3, "val_loss": 0.26764, "val_accuracy": 0.9188}


@pytest.fixture
def shown_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Lightning's own bar have these metrics to show."""
    monkeypatch.setattr(TQDMProgressBar, "get_metrics", lambda *args: dict(METRICS))


@pytest.mark.usefixtures("shown_metrics")
def test_in_a_pipe_an_epoch_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TQDMProgressBar, "on_train_epoch_end", lambda *args: None)
    loop = SimpleNamespace(batch_idx=859)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, current_epoch=0, fit_loop=loop, global_step=860, log_every_n_steps=50
    )
    module: Any = None
    ProgressBar().on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == "Epoch 0: 860 batches, loss=0.1471, val_loss=0.2676, val_accuracy=0.9188\n"
    callback = ProgressBar()
    callback.begun = 855  # no step of this epoch was logged, so the loss is of another one
    callback.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == "Epoch 0: 860 batches, val_loss=0.2676, val_accuracy=0.9188\n"
    trainer.is_global_zero = False
    ProgressBar().on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("shown_metrics")
def test_the_bar_is_updated_every_fifth_of_a_second_and_at_the_last_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = []
    bar: Any = SimpleNamespace(n=0, set_postfix=lambda metrics: updates.append((bar.n, metrics["loss"])))
    callback = ProgressBar()
    callback.terminal, callback._train_progress_bar = True, bar
    module: Any = None
    for batch in range(100):  # of 1/16 s each: every fourth is later than 0.2 s
        monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda now=10 + batch / 16: now))
        trainer: Any = SimpleNamespace(is_last_batch=batch == 99, fit_loop=SimpleNamespace(batch_idx=batch))
        callback.on_train_batch_end(trainer, module, None, None, batch)
    assert [n for n, _ in updates] == [*range(1, 100, 4), 100]
    assert {loss for _, loss in updates} == {0.14712}


@pytest.mark.parametrize(("stage", "bar"), [("validation", "val"), ("test", "test"), ("predict", "predict")])
def test_the_bar_of_an_evaluation_as_well(monkeypatch: pytest.MonkeyPatch, stage: str, bar: str) -> None:
    """In a notebook, a command runs in a terminal: each of 1000 updates a second would be kept there."""
    updates = []
    shown: Any = SimpleNamespace(n=0, total=100, disable=False, refresh=lambda: updates.append(shown.n))
    callback = ProgressBar()
    monkeypatch.setattr(callback, f"_{bar}_progress_bar", shown)
    callback.enable()
    for batch in range(100):  # of 1/16 s each
        monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda now=10 + batch / 16: now))
        getattr(callback, f"on_{stage}_batch_end")(None, None, None, None, batch)
    assert updates == [*range(1, 100, 4), 100]
