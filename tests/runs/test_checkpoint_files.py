import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.errors import RequestError
from mnist_amp.runs import checkpoint_files, folders
from tests import conftest
from tests.conftest import Malicious

WHOLE: dict[str, Any] = {**conftest.WHOLE, "state_dict": {}}


def checkpoint(root: Path, version: int, name: str) -> Path:
    path = root / "lightning_logs" / f"version_{version}" / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(WHOLE, path)
    return path


def test_best_and_last_are_those_of_the_newest_run_that_has_them(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, "best")
    last = checkpoint(tmp_path, 9, "last")
    best = checkpoint(tmp_path, 10, "best")
    (tmp_path / "lightning_logs" / "version_11").mkdir()
    assert checkpoint_files.resolve("best", tmp_path, folder_means="best") == best
    assert checkpoint_files.resolve("last", tmp_path, folder_means="best") == last
    last.unlink()
    # a missing last.ckpt is named all the same: other checkpoints of its run can replace it
    assert checkpoint_files.resolve("last", tmp_path, folder_means="best") == best.with_name("last.ckpt")


def test_a_file_or_a_runs_folder(tmp_path: Path) -> None:
    best, last = checkpoint(tmp_path, 0, "best"), checkpoint(tmp_path, 0, "last")
    assert checkpoint_files.resolve(str(last), tmp_path, folder_means="best") == last
    assert checkpoint_files.resolve(str(last.parent.parent), tmp_path, folder_means="best") == best
    assert checkpoint_files.resolve(str(last.parent.parent), tmp_path, folder_means="last") == last


def test_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as error:
        checkpoint_files.resolve("best", tmp_path, folder_means="best")
    assert str(error.value) == (
        f"there is no run with a checkpoint under {tmp_path / 'lightning_logs'}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path."
    )


def test_the_message_about_a_missing_file_names_the_known_checkpoints(tmp_path: Path) -> None:
    missing = tmp_path / "no.ckpt"
    with pytest.raises(RequestError) as error:
        checkpoint_files.resolve(str(missing), tmp_path, folder_means="best")
    assert str(error.value).endswith(f"No run under {tmp_path / 'lightning_logs'} has one.")
    known = checkpoint(tmp_path, 0, "last")
    with pytest.raises(RequestError) as error:
        checkpoint_files.resolve(str(missing), tmp_path, folder_means="best")
    assert str(error.value) == f"there is no checkpoint at {missing}. There are {known}."


def test_reads_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_files.read(checkpoint(tmp_path, 0, "last")) == WHOLE


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.ckpt"
    path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert str(error.value) == (f"{path} ({len(content)} bytes) is not a checkpoint, or it is truncated or damaged.")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"model": {"a": 1}}, "is not a training checkpoint"),
        ([1, 2], "is not a training checkpoint"),
    ],
)
def test_other_files_of_torch_save_are_refused(tmp_path: Path, content: Any, kind: str) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert str(error.value) == f"{path} {kind}. A run keeps its checkpoints in its folder checkpoints/."


def test_the_newest_readable_checkpoint(tmp_path: Path) -> None:
    names = [(0, "last"), (2, "best"), (2, "last"), (1, "last")]
    old, best, last, newer = (checkpoint(tmp_path, *name) for name in names)
    for age, path in enumerate((newer, last, best, old)):
        os.utime(path, (0, 1_000_000 - age))
    last.write_bytes(b"")
    for expected in (best, newer, old):
        found = checkpoint_files.newest_readable(tmp_path, beside=last)
        assert found == (expected, WHOLE)
        expected.write_bytes(b"")
    assert checkpoint_files.newest_readable(tmp_path, beside=last) is None


def test_never_runs_code_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**WHOLE, "state_dict": Malicious()}, "evil.ckpt")
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(Path("evil.ckpt"))
    assert str(error.value) == (
        "evil.ckpt holds objects other than tensors and plain values. It is refused because loading it could run code."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_the_folder_of_a_checkpoint() -> None:
    assert checkpoint_files.folder_of(Path("a/version_3/checkpoints/best.ckpt")) == Path("a/version_3")
    assert checkpoint_files.folder_of(Path("downloads/best.ckpt")) == Path("downloads")


def test_last_is_not_the_best_of_a_newer_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was killed before its first checkpoint has only the best one of the run before it."""
    for path in (
        "version_0/checkpoints/last.ckpt",
        "version_0/checkpoints/best.ckpt",
        "version_1/checkpoints/best.ckpt",
    ):
        (folders.logs_dir(tmp_path) / path).parent.mkdir(parents=True, exist_ok=True)
        (folders.logs_dir(tmp_path) / path).touch()
    found = checkpoint_files.resolve("last", tmp_path, folder_means="last")
    assert found == folders.logs_dir(tmp_path) / "version_0" / "checkpoints" / "last.ckpt"
    newer, older = folders.logs_dir(tmp_path) / "version_1", folders.logs_dir(tmp_path) / "version_0"
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {newer} has no last checkpoint yet, so the one of {older} is used.\n"
    )
