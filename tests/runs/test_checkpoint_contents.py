from typing import Any

import pytest

from mnist_amp.runs.checkpoint_contents import EpochMetrics, Progress, RunInfo, history, progress
from tests.conftest import WHOLE


@pytest.mark.parametrize(
    ("ready", "is_last_batch", "epochs"), [(1, True, 1), (1, False, 0), (3, False, 2), (0, False, 0)]
)
def test_progress_counts_completed_epochs(ready: int, is_last_batch: bool, epochs: int) -> None:
    loop = {
        "epoch_progress": {"current": {"ready": ready}},
        "epoch_loop.batch_progress": {"is_last_batch": is_last_batch},
    }
    assert progress({**WHOLE, "loops": {"fit_loop": loop}}) == Progress(epochs=epochs, step=2)


def test_history_has_a_row_for_each_epoch() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 0, "step": 8, "train_loss": 0.5, "train_accuracy": 0.75},
        {"epoch": 1, "step": 16, "val_loss": 0.25, "val_accuracy": 1.0},
    ]
    checkpoint = {"callbacks": {"RunCheckpoint": {"history": rows}}}
    first, second = history(checkpoint)
    assert first == EpochMetrics(0, 8, train_loss=0.5, train_accuracy=0.75, val_loss=None, val_accuracy=None)
    assert second.val_accuracy == 1.0
    assert [first.to_dict(), second.to_dict()] == rows


@pytest.mark.parametrize("checkpoint", [{}, {"callbacks": {}}, {"callbacks": {"EarlyStopping": {}}}])
def test_a_checkpoint_of_another_trainer_has_no_history(checkpoint: dict[str, Any]) -> None:
    assert history(checkpoint) == []


def test_a_metric_of_a_later_version_is_ignored() -> None:
    assert EpochMetrics.from_dict({"epoch": 0, "step": 8, "val_f1": 0.5}) == EpochMetrics(0, 8)


def test_run_info_is_read_as_it_was_written() -> None:
    checkpoint: dict[str, Any] = {}
    assert RunInfo.of(checkpoint) == RunInfo(config=None, folder=None, precision=None, slurm_job=None)
    info = RunInfo(config="a: 1", folder="/runs/version_0", precision="bf16-mixed", slurm_job="7")
    info.write_to(checkpoint)
    assert checkpoint == {
        "mnist_amp_config": "a: 1",
        "mnist_amp_folder": "/runs/version_0",
        "mnist_amp_precision": "bf16-mixed",
        "mnist_amp_slurm_job": "7",
    }
    assert RunInfo.of(checkpoint) == info
