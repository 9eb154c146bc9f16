"""Options of `fit`, by runs of a few steps in this process."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from tests.conftest import THEIRS, Refused, Run, filled

SMOKE = ("--config", "configs/smoke.yaml")


def test_a_drawn_seed_is_printed_and_kept(run: Run) -> None:
    seeds = []
    for _ in range(2):
        printed = run("fit", *SMOKE, "--seed_everything=true")
        seeds.append(int(printed.split("seed       ")[1].split("\n")[0]))
    assert seeds[0] != seeds[1]
    last = checkpoint_files.read(Path("lightning_logs/version_0/checkpoints/last.ckpt"))
    assert last["datamodule_hyper_parameters"]["seed"] == seeds[0]


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


def test_barebones_and_another_progress_bar(run: Run, tmp_path: Path) -> None:
    run("fit", "--trainer.barebones=true", "--trainer.max_steps=2")
    assert list(tmp_path.iterdir()) == []
    run("fit", *SMOKE, "--trainer.callbacks=TQDMProgressBar")


def test_an_invalid_optimizer_leaves_nothing(refused: Refused, tmp_path: Path) -> None:
    found = refused("fit", *SMOKE, "--optimizer.eps=-1")
    assert found == filled(f"mnist-amp: error: the optimizer or its schedule can't be made: {THEIRS}.\n", found)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_out_of_memory(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def exhausted(self: LitClassifier, batch: Any, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(LitClassifier, "training_step", exhausted)
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *SMOKE)
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == (
        "mnist-amp: error: the GPU is out of memory. Lower data.batch_size, make the network smaller, or free the GPU. "
        "CUDA out of memory. Tried to allocate 2 GiB.\n"
    )


@pytest.mark.cuda
def test_the_memory_of_a_cuda_device_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(7e8 / total)  # a layer returns 8192 x 40,000 values of 2 bytes
    try:
        with pytest.raises(SystemExit) as exit_info:
            run("fit", *SMOKE, "--network.hidden_dim=8192", "--data.batch_size=40000")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert exit_info.value.code == 1
    assert capsys.readouterr().err.startswith(
        "mnist-amp: error: the GPU is out of memory. Lower data.batch_size, make the network smaller, or free the GPU. "
    )
