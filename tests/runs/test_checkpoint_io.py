"""Checkpoints are written atomically, verified when they are read, and never run code."""

import errno
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from mnist_amp.errors import RequestError, RunError
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.checkpoint_io import AtomicCheckpointIO
from tests.conftest import WHOLE, Malicious, Refused, Run
from tests.data.test_mnist import Mirror

SMOKE = ("--config", "configs/smoke.yaml")


def content(value: float) -> dict[str, Any]:
    return {**WHOLE, "state_dict": {"weight": torch.full((1000,), value)}}


def test_writes_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    for value in (1.0, 2.0):
        AtomicCheckpointIO().save_checkpoint(content(value), path)
        assert AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["weight"][0] == value
    assert list(path.parent.iterdir()) == [path]
    AtomicCheckpointIO().remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1.0), path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"last.ckpt can't be written: No space left on device \(.* MB free there\)"):
        AtomicCheckpointIO().save_checkpoint(content(2.0), path)
    assert list(tmp_path.iterdir()) == [path]
    assert checkpoint_files.read(path)["state_dict"]["weight"][0] == 1.0


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1.0), path)
    data = bytearray(path.read_bytes())
    start = data.index(b"\x00\x00\x80\x3f" * 100) + 100  # among the weights, each 1.0
    data[start : start + 4] = b"\x01\x02\x03\x04"
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"].isfinite().all()  # torch does not see it
    with pytest.raises(RequestError, match=r"last.ckpt \(.* bytes\) is not a checkpoint, or it is truncated or damag"):
        checkpoint_files.read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(value), path)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert (
        str(error.value)
        == f"{path} has non-finite values in weight, because its training diverged. Use an earlier checkpoint."
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {
                "optimizer_states": [
                    {"state": {0: {"exp_avg": torch.tensor([torch.nan])}}, "param_groups": [{"params": [0]}]}
                ]
            },
            "has non-finite values in exp_avg of parameter 0, because its training diverged. Use an earlier "
            "checkpoint.",
        ),
        (
            {"state_dict": [1]},
            "is damaged, or a checkpoint of another project: its state_dict is invalid.",
        ),
        (
            {"optimizer_states": [{"state": {0: {"a": torch.zeros(1).expand(9)}}, "param_groups": [{"params": [0]}]}]},
            "is damaged, or a checkpoint of another project: its optimizer_states.state.0.a is invalid.",
        ),
    ],
)
def test_invalid_parts_are_refused(tmp_path: Path, part: dict[str, Any], message: str) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**content(1.0), **part}, path)
    with pytest.raises(RequestError) as error:
        checkpoint_files.read(path)
    assert str(error.value) == f"{path} {message}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Mirror, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("subcommand", ["fit", "test", "validate", "predict"])
def test_code_in_a_checkpoint_never_runs(refused: Refused, tmp_path: Path, served: str, subcommand: str) -> None:
    torch.save({**WHOLE, "state_dict": Malicious()}, tmp_path / "evil.ckpt")
    for where in (f"{served}/evil.ckpt", f"file://{tmp_path}/evil.ckpt"):
        for flags in ((), ("--weights_only=false",)):
            assert refused(subcommand, f"--ckpt_path={where}", *flags) == (
                f"mnist-amp: error: {where} is not a local file. Download the checkpoint first.\n"
            )
    assert refused(subcommand, "--ckpt_path=evil.ckpt", "--weights_only=false") == (
        "mnist-amp: error: evil.ckpt holds objects other than tensors and plain values. It is refused because loading "
        "it could run code.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_a_run_writes_its_checkpoints_with_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    save = AtomicCheckpointIO.save_checkpoint

    def noted(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        written.append(Path(path).name)
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", noted)
    run("fit", *SMOKE, "--checkpoint.every_n_train_steps=3")
    assert written == ["last.ckpt", "last.ckpt", "best.ckpt", "last.ckpt"]


class KeepsObject(Callback):
    """Its state is no plain value."""

    def state_dict(self) -> dict[str, Any]:
        return {"path": Path("here")}


def test_a_state_that_could_not_be_loaded_stops_the_run_at_its_first_checkpoint(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the run would train to its end, and no command would read its checkpoints."""
    own = "--trainer.callbacks=tests.runs.test_checkpoint_io.KeepsObject"
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *SMOKE, own, "--trainer.max_epochs=9")
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == (
        "mnist-amp: error: the part callbacks.KeepsObject of the checkpoint holds objects other than tensors and plain "
        "values. No command would load it, because that could run code, so the run is stopped. Give the state plain "
        "values.\n"
    )
    assert not list(Path().glob("lightning_logs/version_0/checkpoints/*.ckpt"))
