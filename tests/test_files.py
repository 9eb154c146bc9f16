from pathlib import Path

import pytest

from mnist_amp.files import written_whole


def test_replaces_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with written_whole(path) as draft:
            draft.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("good")

    def interrupted() -> None:
        with written_whole(path) as draft:
            draft.write_text("ba")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "good"
