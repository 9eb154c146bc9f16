"""Each config file of the package, in a run of a few steps."""

import csv
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_amp.cli.arguments import shipped_configs
from mnist_amp.data import ClassificationDataModule
from mnist_amp.runs import checkpoint_files
from tests.conftest import ROOT, Refused, Run, command, forked

SMOKE = ("--config", "configs/smoke.yaml")
TESTS = ("cli/test_configs.py", "reporting/test_tracking.py", "integrations/test_trackers.py")
FOLDER = Path("lightning_logs/version_0")


def fit(run: Run, config: str, *args: str) -> tuple[str, dict[str, Any]]:
    """Train a few steps with a config; return the printed text and the last checkpoint."""
    printed = run("fit", "--config", f"configs/{config}.yaml", *SMOKE, *args)
    return printed, checkpoint_files.read(FOLDER / "checkpoints" / "last.ckpt")


def metrics() -> list[dict[str, str]]:
    with (FOLDER / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_config_is_tested_and_begins_with_a_comment() -> None:
    tests = "".join((ROOT / "tests" / name).read_text() for name in TESTS)
    for path in shipped_configs().glob("*.yaml"):
        assert re.search(rf'["/=]{path.stem}[".]', tests), path
        assert path.read_text().startswith("# ")
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_smoke(run: Run) -> None:
    run("fit", *SMOKE)
    assert checkpoint_files.read(FOLDER / "checkpoints" / "last.ckpt")["global_step"] == 8
    assert [row["train_loss_step"] != "" for row in metrics()] == [True] * 8 + [False, False]


def test_guide(run: Run) -> None:
    _, checkpoint = fit(run, "guide")
    assert checkpoint["datamodule_hyper_parameters"]["val_size"] == 0
    assert {key for row in metrics() for key in row if row[key]} == {
        *("epoch", "step", "train_loss_step", "train_loss", "train_accuracy")
    }


def test_fast(run: Run) -> None:
    printed, checkpoint = fit(run, "fast")
    assert "execution  50 optimizer steps per execution, " in printed
    assert checkpoint["global_step"] == 8
    assert {path.name for path in FOLDER.iterdir()} == {"checkpoints", "config.yaml", "curves.png", "model.pth"}


@pytest.mark.parametrize(("config", "precision"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_precision(run: Run, config: str, precision: str) -> None:
    printed, checkpoint = fit(run, config)
    assert f"precision  {precision}\n" in printed
    assert checkpoint.get("MixedPrecision", {}) == {}


def test_real_fp16_on_a_cpu(run: Run) -> None:
    printed, checkpoint = fit(run, "fp16-cpu")
    assert "precision  16-mixed\n" in printed
    assert checkpoint["MixedPrecision"]["scale"] == 65536
    assert checkpoint["MixedPrecision"]["_growth_tracker"] == 8


@pytest.mark.cuda
@pytest.mark.parametrize("config", ["fp16-cuda", "cuda"])
def test_on_a_cuda_device(run: Run, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.delenv("MNIST_AMP_TRAINER__ACCELERATOR")
    printed, checkpoint = fit(run, config)
    assert f"device     {torch.cuda.get_device_name()}\nprecision  16-mixed\n" in printed
    assert checkpoint["MixedPrecision"]["scale"] == 65536


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("config", ["fp16-cuda", "cuda"])
def test_cuda_is_refused_without_a_gpu(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.delenv("MNIST_AMP_TRAINER__ACCELERATOR")
    message = refused("fit", "--config", f"configs/{config}.yaml", *SMOKE)
    assert message == (
        "mnist-amp: error: trainer.accelerator asks for a GPU, but no GPU can be used here. "
        "Leave it at auto, or give cpu.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_cosine_with_early_stopping(run: Run) -> None:
    # the loss can't fall at this learning rate, so the run stops after 1 + 3 epochs
    fit(run, "cosine", "--trainer.max_epochs=20", "--optimizer.lr=1e-30")
    checkpoint = checkpoint_files.read(FOLDER / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 4 * 8
    assert checkpoint["lr_schedulers"][0]["T_max"] == 20


def test_cosine_lowers_the_learning_rate(run: Run) -> None:
    _, checkpoint = fit(run, "cosine", "--trainer.max_epochs=2")
    rates = [float(row["lr-Adam"]) for row in metrics() if row["lr-Adam"]]
    assert rates[0] == 0.001
    assert checkpoint["lr_schedulers"][0]["_last_lr"][0] < rates[-1] <= 0.001


def test_overfit(run: Run) -> None:
    run("fit", "--config", "configs/overfit.yaml")
    last = [row for row in metrics() if row["train_loss"]][-1]
    assert float(last["train_accuracy"]) == 1.0
    assert float(last["train_loss"]) < 0.05
    assert checkpoint_files.read(FOLDER / "checkpoints" / "last.ckpt")["global_step"] == 100


def test_profile(run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning sets this when it is imported: to False, unless the root logger has a handler by then
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    run("fit", "--config", "configs/profile.yaml", "--trainer.limit_train_batches=8")
    assert "run_training_batch" in caplog.text


def test_each_of_two_processes_trains_on_its_half_once(tmp_path: Path, data_dir: Path) -> None:
    args = ("--config=configs/ddp-cpu.yaml", "--trainer.max_epochs=1", f"--data.data_dir={data_dir}")
    seen = ("--trainer.callbacks=tests.seen.Seen", "--trainer.limit_val_batches=2", "--data.batch_size=250")
    command("fit", *args, *seen, cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    halves = [set(map(int, (tmp_path / f"seen_{rank}.txt").read_text().split())) for rank in (0, 1)]
    assert [len(half) for half in halves] == [27_500, 27_500]
    assert halves[0] | halves[1] == set(ClassificationDataModule(seed=42).split()[0].tolist())


def test_two_processes(tmp_path: Path, data_dir: Path) -> None:
    """Train ddp-cpu in two processes, and evaluate it in two: the metrics are equal, bit for bit, to those of one."""
    data = f"--data.data_dir={data_dir}"
    printed = command("fit", "--config", "configs/ddp-cpu.yaml", *SMOKE, data, cwd=tmp_path)
    assert printed.startswith("device     2 x CPU (")
    last = checkpoint_files.read(tmp_path / FOLDER / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 8

    found = {}
    for name, config, test in (("two", "configs/ddp-cpu.yaml", command), ("one", "configs/bf16.yaml", forked)):
        test("test", "--config", config, data, "--data.batch_size=63", cwd=tmp_path)
        reports = (tmp_path / FOLDER).glob("test_best*/metrics.json")
        found[name] = json.loads(max(reports, key=lambda path: path.stat().st_mtime_ns).read_text())
    assert found["two"].pop("device") != found["one"].pop("device")
    assert found["two"] == found["one"]
    assert found["one"]["images"] == 10_000
