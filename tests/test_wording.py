import os
from pathlib import Path

from mnist_amp.wording import counted, nearest, printable


def test_counted() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
    assert [counted(n, "batch") for n in (1, 2)] == ["1 batch", "2 batches"]


def test_nearest() -> None:
    assert nearest("tset", ["fit", "test"]) == " (did you mean test?)"
    assert nearest("export", ["fit", "test"]) == ""


def test_printable_names() -> None:
    assert printable(Path(os.fsdecode(b"\xff7\n\x1b[31m\xc3\xa4.png"))) == "\\udcff7\\n\\x1b[31mä.png"
