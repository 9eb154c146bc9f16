"""Loggers get more than metrics: read by TensorBoard's own reader and from the CSV logger's files."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.checkpoint_contents import tracked_runs
from tests.conftest import Run

RUN = Path("lightning_logs/version_0")


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def text(events: EventAccumulator, name: str) -> str:
    (event,) = events.Tensors(f"{name}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


@pytest.mark.drawn
def test_a_fit_in_tensorboard(run: Run) -> None:
    run(
        "fit",
        "--config=smoke.yaml",
        "--optimizer.lr=0.002",
        "--trainer.callbacks=LearningRateMonitor",
        "--trainer.max_time=01:00:15:00",
    )
    events = read(RUN)
    settings = text(events, "settings").splitlines()
    assert {
        *("| optimizer | torch.optim.Adam |", "| optimizer.lr | 0.002 |", "| network.hidden_dim | 128 |"),
        *("| trainer.precision | 16-mixed |", "| effective.precision | bf16-mixed |", "| data.batch_size | 64 |"),
        "| trainer.callbacks | lightning.pytorch.callbacks.LearningRateMonitor |",
        f"| run_folder | {RUN.absolute()} |",
        "| trainer.max_time | 01:00:15:00 |",  # YAML 1.1 would read a number
    } <= set(settings)
    assert text(events, "best_checkpoint") == str((RUN / "checkpoints" / "best.ckpt").absolute())
    indented = "\n".join(f"    {line}" for line in (RUN / "config.yaml").read_text().splitlines())
    assert text(events, "config.yaml") == indented
    (curves,) = events.Images("curves")
    assert (curves.width, curves.height) == (1080, 432)
    assert len(events.Scalars("train_loss_step")) == 8
    assert [event.step for event in events.Scalars("val_loss")] == [7]
    score = checkpoint_files.read(RUN / "checkpoints" / "best.ckpt")["callbacks"]["RunCheckpoint"]["best_model_score"]
    assert [event.value for event in events.Scalars("best/val_accuracy")] == [score.item()]
    plugin: Any = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert b"optimizer.lr" in plugin.content  # the page that compares runs
    assert tracked_runs(checkpoint_files.read(RUN / "checkpoints" / "last.ckpt")) == {}


def test_the_settings_are_those_of_the_resolved_configuration(run: Run) -> None:
    run("fit", "--config=smoke.yaml", "--network=CNN")
    logged, config = (yaml.safe_load((RUN / name).read_text()) for name in ("hparams.yaml", "config.yaml"))
    assert logged["network"] == config["network"]["class_path"] == "mnist_amp.networks.CNN"
    for group in ("trainer", "data"):
        for key, value in config[group].items():
            assert logged[f"{group}.{key}"] == value, key
    assert logged["seed_everything"] == 42
    assert "network/class_path" not in logged  # Lightning's own names, for a part of the settings
    assert logged["best_checkpoint"] == str((RUN / "checkpoints" / "best.ckpt").absolute())


def test_a_resumed_run_names_its_checkpoint(run: Run) -> None:
    run("fit", "--config=smoke.yaml")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    logged = yaml.safe_load(Path("lightning_logs/version_1/hparams.yaml").read_text())
    assert logged["resumed_from"] == "lightning_logs/version_0/checkpoints/last.ckpt"
    assert "resumed_from_run" not in logged  # files have no run of a tracker


def test_own_loggers_beside_the_csv_of_the_run(run: Run) -> None:
    printed = run("fit", "--config=smoke.yaml", "--config=csv.yaml")
    place = Path("csv_logs/mnist-amp/version_0")
    assert f"\nlogs      {place}/ (CSVLogger)\n" in printed
    assert (RUN / "metrics.csv").read_bytes() == (place / "metrics.csv").read_bytes()
    assert not list(RUN.glob("events.*"))
    run("test", "--config=csv.yaml")
    tested = Path("csv_logs/mnist-amp/version_1")
    assert "test_accuracy" in (tested / "metrics.csv").read_text()
    settings = yaml.safe_load((tested / "hparams.yaml").read_text())
    assert settings["effective.precision"] == "bf16-mixed"
    assert settings["checkpoint"] == "lightning_logs/version_0/checkpoints/best.ckpt"
