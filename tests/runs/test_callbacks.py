"""What the callbacks write and say, by runs of a few steps in this process."""

import csv
import json
import re
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from mnist_amp.module import LitSimpleNN
from mnist_amp.reporting.evaluation_report import WORST, _worst
from mnist_amp.runs import checkpoint_files
from mnist_amp.training.metrics import Scored
from tests.conftest import Refused, Run, files

SMOKE = ("--config", "configs/smoke.yaml")
FOLDER = Path("lightning_logs/version_0")


def checkpoint(name: str) -> dict[str, Any]:
    return checkpoint_files.read(FOLDER / "checkpoints" / f"{name}.ckpt")


def history(name: str = "last") -> list[dict[str, float]]:
    rows: list[dict[str, float]] = checkpoint(name)["callbacks"]["RunCheckpoint"]["history"]
    return rows


def test_the_best_is_that_of_the_highest_validation_accuracy(run: Run) -> None:
    """At so high a rate the accuracy goes up and down."""
    printed = run("fit", *SMOKE, "--trainer.max_epochs=8", "--optimizer=SGD", "--optimizer.lr=1.5")
    scores = [row["val_accuracy"] for row in history()]
    place = scores.index(max(scores))
    assert 0 < place < 7
    assert max(scores) != scores[-1]
    assert checkpoint("best")["global_step"] == (place + 1) * 8
    assert f"accuracy  {max(scores):.2%} on the validation images, the best after {place + 1} epochs\n" in printed
    weights = torch.load(FOLDER / "model.pth", weights_only=True)
    for name, weight in weights.items():
        assert torch.equal(weight, checkpoint("best")["state_dict"][f"model.{name}"])
    assert not torch.equal(weights["fc1.weight"], checkpoint("last")["state_dict"]["model.fc1.weight"])


def test_the_history_is_what_was_logged(run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=2")
    with (FOLDER / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for epoch, known in enumerate(history()):
        assert (known["epoch"], known["step"]) == (epoch, 8 * (epoch + 1))
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            (logged,) = (float(row[name]) for row in rows if row["epoch"] == str(epoch) and row[name])
            assert known[name] == logged


def test_an_epoch_without_validation_has_no_validation_figures(run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2")
    assert ["val_accuracy" in row for row in history()] == [False, True, False]
    assert checkpoint_files.position(checkpoint("best")) == {"epochs": 2, "step": 16}
    assert checkpoint_files.position(checkpoint("last")) == {"epochs": 3, "step": 24}


def test_a_run_ended_within_an_epoch_leaves_its_result(run: Run, tmp_path: Path) -> None:
    printed = run("fit", *SMOKE, "--trainer.max_steps=5")
    assert "Epoch 0: 5 batches, loss=" in printed
    assert "% on the training images, with no validation, after 0 epochs\n" in printed
    assert {"model.pth", "curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= files(FOLDER)
    assert checkpoint_files.position(checkpoint("last")) == {"epochs": 0, "step": 5}
    assert " of 10,000 images\n" in run("test")


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
def test_training_figures_are_summed_in_full_precision(run: Run, precision: str) -> None:
    run("fit", *SMOKE, "--trainer.limit_train_batches=400", "--trainer.precision", precision)
    (row,) = history()
    assert row["train_loss"] == pytest.approx(0.51, abs=0.02)
    assert row["train_accuracy"] == pytest.approx(0.853, abs=0.01)
    right = row["train_accuracy"] * 400 * 64
    assert right == pytest.approx(round(right), abs=2e-3)


@pytest.mark.parametrize("precision", [("--trainer.precision=32-true",), ("-c", "bf16.yaml"), ("-c", "fp16-cpu.yaml")])
def test_gradients_are_clipped(run: Run, precision: tuple[str, ...]) -> None:
    one_step = ("--trainer.max_steps=1", "--optimizer=SGD", "--optimizer.lr=1")
    run("fit", *precision, *SMOKE, *one_step, "--trainer.gradient_clip_val=0.01")
    seed_everything(42)
    before = LitSimpleNN().state_dict()
    moved = [(value - before[name]).flatten() for name, value in checkpoint("last")["state_dict"].items()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("precision", [("--trainer.precision=32-true",), ("-c", "bf16.yaml"), ("-c", "fp16-cpu.yaml")])
def test_gradients_are_accumulated(run: Run, precision: tuple[str, ...]) -> None:
    """Two batches of 32, accumulated, are a step on their 64 images."""
    run("fit", *precision, *SMOKE, "--trainer.max_steps=1")
    halves = ("--data.batch_size=32", "--trainer.accumulate_grad_batches=2")
    run("fit", *precision, *SMOKE, "--trainer.max_steps=1", *halves)
    whole, halved = checkpoint("last"), checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))
    assert whole["global_step"] == halved["global_step"] == 1
    assert "exp_avg" in whole["optimizer_states"][0]["state"][0]
    for place, state in whole["optimizer_states"][0]["state"].items():
        found = halved["optimizer_states"][0]["state"][place]["exp_avg"]
        torch.testing.assert_close(found, state["exp_avg"], rtol=0.02, atol=1e-5)


def test_a_drawn_seed_is_said_and_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for _ in range(2):
        printed = run("fit", *SMOKE, "--seed_everything=true")
        seeds.append(int(printed.split("seed       ")[1].split("\n")[0]))
        monkeypatch.delenv("PL_GLOBAL_SEED")  # a process of its own would not have it
    assert seeds[0] != seeds[1]
    assert checkpoint("last")["datamodule_hyper_parameters"]["seed"] == seeds[0]


def test_without_a_seed(run: Run) -> None:
    assert "seed       none for the weights (random), 0 for the images\n" in run(
        "fit", *SMOKE, "--seed_everything=false"
    )


def test_without_logger(run: Run) -> None:
    printed = run("fit", *SMOKE, "--trainer.logger=false")
    assert "files     lightning_logs/version_0/ (model.pth, curves.png, checkpoints/, config.yaml)\n" in printed
    assert "tensorboard" not in printed


def test_without_checkpoints(run: Run) -> None:
    printed = run("fit", *SMOKE, "--trainer.enable_checkpointing=false")
    assert "files     lightning_logs/version_0/ (metrics.csv, config.yaml)\n" in printed
    assert "mnist-amp test" not in printed


def test_barebones_and_ones_own_progress_bar(run: Run, tmp_path: Path) -> None:
    run("fit", "--trainer.barebones=true", "--trainer.max_steps=2")
    assert list(tmp_path.iterdir()) == []
    run("fit", *SMOKE, "--trainer.callbacks=TQDMProgressBar")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--optimizer.eps=-1",), "the optimizer or its schedule can't be made: Invalid epsilon value: -1.0."),
        (
            ("--optimizer.fused=true", "--trainer.gradient_clip_val=1"),
            "optimizer.fused and trainer.gradient_clip_val can't be combined in mixed precision, as a fused optimizer "
            "unscales the gradients after they would be clipped. Leave one of them out.",
        ),
    ],
)
def test_an_optimizer_that_can_not_be_made_leaves_nothing(
    refused: Refused, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    assert refused("fit", *SMOKE, *args) == f"mnist-amp: error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_mistakes_that_the_model_was_surest_of_come_first() -> None:
    count = WORST + 5
    logits = torch.zeros(count, 10)
    logits[:, 3] = torch.arange(count) % 7 + torch.arange(count) / 100
    labels = torch.full((count,), 4)
    labels[6] = 3  # right, and the surest of all but a few
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1).expand(count, 28, 28)
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(images=images))
    worst = _worst(Scored(torch.arange(count), labels, logits), trainer)
    expected = [place for place in logits[:, 3].argsort(descending=True).tolist() if place != 6][:WORST]
    assert [int(mistake.image[0, 0]) for mistake in worst] == expected
    assert all((mistake.digit, mistake.guess) == (4, 3) for mistake in worst)
    assert worst[0].probability == pytest.approx(logits.softmax(dim=1).max().item())


@pytest.mark.drawn
def test_what_each_evaluation_leaves(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    before = files(FOLDER)
    report = {"metrics.json", "confusion_matrix.png", "misclassified.png"}
    expected = {"validate": report, "test": report, "predict": {"predictions.csv"}}
    for subcommand, names in expected.items():
        run(subcommand, "--ckpt_path=last")
        assert files(FOLDER) - before == {f"{subcommand}_last/{name}" for name in names}
        before = files(FOLDER)
    recorded = json.loads((FOLDER / "test_last" / "metrics.json").read_text())
    assert recorded["checkpoint"] == str(FOLDER / "checkpoints" / "last.ckpt")
    assert (recorded["epochs"], recorded["step"], recorded["precision"]) == (1, 8, "bf16-mixed")


class Remove(Callback):
    """Removes the run's folder after a step."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 3:
            shutil.rmtree("lightning_logs/version_0")


def test_a_folder_that_is_removed_while_it_is_written_to(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--checkpoint.every_n_train_steps=5", "--trainer.callbacks=tests.runs.test_callbacks.Remove")
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *SMOKE, *settings)
    assert exit_info.value.code == 1
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    assert capsys.readouterr().err == (
        "mnist-amp: error: lightning_logs/version_0 was removed while the run wrote to it, so the run is stopped. "
        f"A checkpoint of step 3 is there again. Go on with: mnist-amp fit --ckpt_path {last}\n"
    )
    run("fit", f"--ckpt_path={last}", "--trainer.callbacks=null")
    assert checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))["global_step"] == 8


def test_a_limit_to_what_can_be_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint of a wider network is too large; nothing of it is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(SystemExit) as exit_info:
            run("fit", *SMOKE, "--model.hidden_dim=1000")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert exit_info.value.code == 1
    assert re.fullmatch(
        r"mnist-amp: error: lightning_logs/version_0/checkpoints/best.ckpt can't be written: File too large "
        r"\([\d,]+ MB free there\). What was there before is as it was.\n",
        capsys.readouterr().err,
    )
    assert not any(path.is_file() for path in Path("lightning_logs/version_0/checkpoints").iterdir())


def test_a_gpu_out_of_memory(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def exhausted(self: LitSimpleNN, batch: Any, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(LitSimpleNN, "training_step", exhausted)
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *SMOKE)
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == (
        "mnist-amp: error: the GPU is out of memory. Lower data.batch_size or model.hidden_dim, or free the GPU. CUDA "
        "out of memory. Tried to allocate 2 GiB.\n"
    )
