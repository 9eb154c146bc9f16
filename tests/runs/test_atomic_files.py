import os
import re
from pathlib import Path

import pytest

from mnist_amp.errors import RunError
from mnist_amp.runs.atomic_files import STALE, atomic_write, describe_write_errors, remove_stale_files


def test_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_old_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("good")

    def interrupted() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ba")
            raise OSError("disk full")

    with pytest.raises(RunError) as error:
        interrupted()
    reason = r" can't be written: disk full \([\d,]+ MB free there\). The file that was there is unchanged."
    assert re.fullmatch(re.escape(str(path)) + reason, str(error.value))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "good"


def test_a_folder_may_have_changed(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error, describe_write_errors(tmp_path):
        raise OSError("disk full")
    assert str(error.value).startswith(f"{tmp_path} can't be written: disk full (")
    assert str(error.value).endswith(" MB free there).")


def test_removes_stale_files_of_killed_processes(tmp_path: Path) -> None:
    names = (".last.123.ckpt", ".last.456.ckpt", "last.ckpt", ".hidden", ".a.b.ckpt")
    for name in names:
        (tmp_path / name).touch()
        if name != ".last.456.ckpt":  # as new as a file that is being written
            os.utime(tmp_path / name, (0, tmp_path.stat().st_mtime - STALE - 1))
    remove_stale_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names) - {".last.123.ckpt"}
