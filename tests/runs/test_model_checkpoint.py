"""The checkpoints that a run writes: `best.ckpt` and `last.ckpt`, by runs of a few steps in this process."""

import csv
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.runs import checkpoint_contents, checkpoint_files
from mnist_amp.runs.checkpoint_contents import EpochMetrics
from tests.conftest import Run, files

SMOKE = ("--config", "configs/smoke.yaml")
FOLDER = Path("lightning_logs/version_0")


def checkpoint(name: str) -> dict[str, Any]:
    return checkpoint_files.read(FOLDER / "checkpoints" / f"{name}.ckpt")


def history() -> list[EpochMetrics]:
    return checkpoint_contents.history(checkpoint("last"))


class Unlearn(Callback):
    """Sets the weights to zero before the validations after 7 epochs and more, so that their accuracy is low."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= 6:
            for parameter in pl_module.parameters():
                parameter.data.zero_()


def test_the_best_has_the_highest_validation_accuracy(run: Run) -> None:
    unlearn = "--trainer.callbacks=tests.runs.test_model_checkpoint.Unlearn"
    printed = run("fit", *SMOKE, "--trainer.max_epochs=8", unlearn)
    scores = [row.to_dict()["val_accuracy"] for row in history()]
    best_epoch = scores.index(max(scores))
    assert 0 < best_epoch < 7
    assert max(scores) != scores[-1]
    assert checkpoint("best")["global_step"] == (best_epoch + 1) * 8
    assert (
        f"accuracy  {max(scores):.2%} on the validation images (best checkpoint, after {best_epoch + 1} epochs)\n"
        in printed
    )
    weights = torch.load(FOLDER / "model.pth", weights_only=True)
    for name, weight in weights.items():
        assert torch.equal(weight, checkpoint("best")["state_dict"][f"model.{name}"])
    assert not torch.equal(weights["fc1.weight"], checkpoint("last")["state_dict"]["model.fc1.weight"])


def test_the_history_is_what_was_logged(run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=2")
    with (FOLDER / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for epoch, known in enumerate(history()):
        assert (known.epoch, known.step) == (epoch, 8 * (epoch + 1))
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            (logged,) = (float(row[name]) for row in rows if row["epoch"] == str(epoch) and row[name])
            assert known.to_dict()[name] == logged


def test_an_epoch_without_validation_has_no_validation_metrics(run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2")
    assert [row.val_accuracy is not None for row in history()] == [False, True, False]
    assert checkpoint_contents.progress(checkpoint("best")) == (2, 16)
    assert checkpoint_contents.progress(checkpoint("last")) == (3, 24)


def test_a_run_that_ends_within_an_epoch_writes_its_result(run: Run, tmp_path: Path) -> None:
    printed = run("fit", *SMOKE, "--trainer.max_steps=5")
    assert "Epoch 0: 5 batches, loss=" in printed
    assert "% on the training images (no validation; newest weights, after 0 epochs)\n" in printed
    assert {"model.pth", "curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= files(FOLDER)
    assert checkpoint_contents.progress(checkpoint("last")) == (0, 5)
    assert " of 10,000 images\n" in run("test")


class Remove(Callback):
    """Removes the run's folder after the third step."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 3:
            shutil.rmtree("lightning_logs/version_0")


def test_a_folder_that_is_removed_during_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--checkpoint.every_n_train_steps=5", "--trainer.callbacks=tests.runs.test_model_checkpoint.Remove")
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *SMOKE, *settings)
    assert exit_info.value.code == 1
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    assert capsys.readouterr().err == (
        "mnist-amp: error: lightning_logs/version_0 was removed during the run, so the run is stopped. "
        f"A checkpoint of step 3 was written there again. Resume with: mnist-amp fit --ckpt_path {last}\n"
    )
    run("fit", f"--ckpt_path={last}", "--trainer.callbacks=null")
    assert checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))["global_step"] == 8


def test_a_checkpoint_that_is_too_large_for_the_disk(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint of a wider network is too large. No part of it is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(SystemExit) as exit_info:
            run("fit", *SMOKE, "--network.hidden_dim=1000")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert exit_info.value.code == 1
    assert re.fullmatch(
        r"mnist-amp: error: lightning_logs/version_0/checkpoints/best.ckpt can't be written: File too large "
        r"\([\d,]+ MB free there\).\n",
        capsys.readouterr().err,
    )
    assert not any(path.is_file() for path in Path("lightning_logs/version_0/checkpoints").iterdir())
