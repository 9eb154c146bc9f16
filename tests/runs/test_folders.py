import os
import threading
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


def test_claims_the_next_number(tmp_path: Path) -> None:
    for other in ("version_9", "version_10", "version_x", "notes"):
        (tmp_path / "lightning_logs" / other).mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_99").touch()  # not a folder
    assert folders.create_run_dir(tmp_path) == tmp_path / "lightning_logs" / "version_11"


def test_claims_at_once_are_all_different(tmp_path: Path) -> None:
    claimed: list[Path] = []
    threads = [threading.Thread(target=lambda: claimed.append(folders.create_run_dir(tmp_path))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in claimed) == sorted(f"version_{n}" for n in range(20))


def test_best_and_last_are_the_newest_runs_that_has_one(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, "best")
    last = checkpoint(tmp_path, 9, "last")
    best = checkpoint(tmp_path, 10, "best")
    (tmp_path / "lightning_logs" / "version_11").mkdir()
    assert checkpoint_files.resolve("best", tmp_path, folder_means="best") == best
    assert checkpoint_files.resolve("last", tmp_path, folder_means="best") == last
    last.unlink()
    # which is missing, and for which others of the same run stand in
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


def test_a_missing_file_names_those_that_are_there(tmp_path: Path) -> None:
    missing = tmp_path / "no.ckpt"
    with pytest.raises(RequestError) as error:
        checkpoint_files.resolve(str(missing), tmp_path, folder_means="best")
    assert str(error.value).endswith(f"There are none under {tmp_path / 'lightning_logs'} either.")
    known = checkpoint(tmp_path, 0, "last")
    with pytest.raises(RequestError) as error:
        checkpoint_files.resolve(str(missing), tmp_path, folder_means="best")
    assert str(error.value) == f"there is no checkpoint at {missing}. There are {known}."


def test_reads_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_files.read(checkpoint(tmp_path, 0, "last")) == WHOLE


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
def test_refuses_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.ckpt"
    path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert str(error.value) == (f"{path} ({len(content)} bytes) is no checkpoint, or one that is cut short or damaged.")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"fc1.weight": torch.zeros(1)}, "holds weights alone, as model.pth does"),
        ({"model": {"a": 1}}, "is not a training checkpoint"),
        ([1, 2], "is not a training checkpoint"),
    ],
)
def test_refuses_other_things_that_torch_saved(tmp_path: Path, content: Any, kind: str) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert str(error.value) == f"{path} {kind}; a run keeps its checkpoints in its folder checkpoints/."


def test_the_newest_whole_checkpoint(tmp_path: Path) -> None:
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
        "evil.ckpt holds other things than weights and plain values. It is refused, as loading it could run code."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_the_folder_of_a_checkpoint() -> None:
    assert checkpoint_files.folder_of(Path("a/version_3/checkpoints/best.ckpt")) == Path("a/version_3")
    assert checkpoint_files.folder_of(Path("downloads/best.ckpt")) == Path("downloads")


def test_the_results_of_other_commands_are_numbered_apart(tmp_path: Path) -> None:
    folders.create_run_dir(tmp_path)
    assert [folders.create_run_dir(tmp_path, "profile") for _ in range(2)] == [
        tmp_path / "lightning_logs" / "profile" / f"version_{number}" for number in (0, 1)
    ]
    assert folders.create_run_dir(tmp_path) == tmp_path / "lightning_logs" / "version_1"


def test_last_is_not_the_best_of_a_newer_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was killed before its first checkpoint has the best of the one before, carried over."""
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
        f"mnist-amp: warning: {newer} has no last checkpoint yet, so that of {older} is taken.\n"
    )
