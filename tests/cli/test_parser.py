"""A value means the same in each place where it can be given, and whatever files are in the current folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_amp.__main__ import main
from tests.conftest import Refused, Run

Printed = Callable[..., dict[str, Any]]

# options whose values are words or numbers, with values that the settings of a command may have
VALUES = {
    "optimizer": "SGD",
    "optimizer.lr": "1",
    "lr_scheduler": "CosineAnnealingLR",
    "lr_scheduler.T_max": "3",
    "model.lr_scheduler_interval": "step",
    "data.data_dir": "mine",
    "data.batch_size": "64",
    "matmul_precision": "highest",
    "seed_everything": "true",
    "trainer.accelerator": "cpu",
    "trainer.strategy": "auto",
    "trainer.devices": "1",
    "trainer.precision": "bf16-mixed",
    "trainer.logger": "TensorBoardLogger",
    "trainer.logger.save_dir": "logs",
    "trainer.callbacks": "EarlyStopping",
    "trainer.callbacks.monitor": "val_loss",
    "trainer.callbacks.mode": "min",
    "trainer.plugins": "AsyncCheckpointIO",
    "trainer.profiler": "simple",
    "trainer.deterministic": "warn",
    "trainer.gradient_clip_algorithm": "norm",
    "trainer.max_time": "00:00:01:00",
    "trainer.limit_train_batches": "2",
    "trainer.default_root_dir": "here",
    "checkpoint.every_n_train_steps": "5",
    "scaler.init_scale": "2",
}
NESTED = """
optimizer: Adam
lr_scheduler: {class_path: SequentialLR, init_args: {milestones: [2], schedulers: [
  {class_path: LinearLR, init_args: {total_iters: 2}}, {class_path: StepLR, init_args: {step_size: 3}}]}}
trainer:
  logger: [{class_path: CSVLogger, init_args: {save_dir: logs}}]
  plugins: [{class_path: MixedPrecision, init_args: {precision: 16-mixed, device: cpu}}]
  callbacks: [RichModelSummary, {class_path: EarlyStopping, init_args: {monitor: val_loss}}]
"""


@pytest.fixture
def printed(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Return the settings that `mnist-amp fit` with these arguments prints."""
    for name in ("MNIST_AMP_DATA__DATA_DIR", "MNIST_AMP_TRAINER__ACCELERATOR"):
        monkeypatch.delenv(name)

    def printed(*args: str) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main(["fit", *args, "--print_config"])
        found = capsys.readouterr()
        assert done.value.code == 0, found.err
        settings: dict[str, Any] = yaml.safe_load(found.out)
        return settings

    return printed


def touch_all(words: set[str]) -> None:
    """Make files with these names, which hold settings of their own."""
    for word in words:
        Path(word).write_text("data: {val_size: 1}\n")


@pytest.mark.parametrize("place", ["command line", "environment", "config file"])
def test_a_file_that_is_named_like_a_value_changes_nothing(
    printed: Printed, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    args = [f"--{key}={value}" for key, value in VALUES.items()]
    words = set(VALUES.values()) | {"last", "best", "smoke", "val_loss"}
    if place == "environment":
        for key, value in VALUES.items():
            monkeypatch.setenv(f"MNIST_AMP_{key.upper().replace('.', '__')}", value)
        args = []
    elif place == "config file":
        Path("nested").write_text(NESTED)
        args = ["--config=nested"]
        words = set(re.findall(r"[A-Za-z_]\w+", NESTED))
    without = printed(*args)
    touch_all(words)
    assert printed(*args) == without
    assert without["data"]["batch_size"] == 64


def test_a_resumed_run_is_the_same_with_files_named_like_its_settings(fitted: Run, run: Run) -> None:
    fitted("--config=configs/smoke.yaml", "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss")
    settings = Path("lightning_logs/version_0/config.yaml").read_text()
    words = set(re.findall(r": ([\w-]+)$", settings, re.MULTILINE)) | {"best", "last", "EarlyStopping", "Adam"}
    assert {"highest", "epoch", "16-mixed", "auto", "val_loss", "null"} <= words
    touch_all(words)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    run("test", "--ckpt_path=last", "--trainer.limit_test_batches=1")
    resumed = Path("lightning_logs/version_1/config.yaml").read_text()
    assert resumed == "# resumed from lightning_logs/version_0/checkpoints/last.ckpt\n" + settings.replace(
        "max_epochs: 1", "max_epochs: 2"
    ).replace("weights_only: null", "weights_only: true")


@pytest.mark.parametrize("name", ["last", "best", "hpc"])
def test_a_checkpoint_file_may_have_the_name_of_a_word(fitted: Run, run: Run, name: str) -> None:
    fitted("--config=configs/smoke.yaml")
    Path("lightning_logs/version_0/checkpoints/last.ckpt").rename(name)
    assert f"\ncheckpoint  {name} (1 epoch done, step 8)\n" in run(
        "test", f"--ckpt_path=./{name}", "--trainer.limit_test_batches=1"
    )


# option, text, value: each in a file and on the command line
TEXTS: list[tuple[str, str, Any]] = [
    ("trainer.max_time", "1:00:00:00", "1:00:00:00"),
    ("trainer.max_time", "00:12:00:00", "00:12:00:00"),
    ("trainer.val_check_interval", "00:12:00:00", "00:12:00:00"),
    ("trainer.default_root_dir", "1:30", "1:30"),
    ("trainer.default_root_dir", "no", "no"),
    ("data.data_dir", "on", "on"),
    ("data.data_dir", "010", "010"),
    ("data.data_dir", "1e3", "1e3"),
    ("data.data_dir", "2026-11-25", "2026-11-25"),
    ("data.data_dir", "2026-13-45", "2026-13-45"),
    ("data.batch_size", "010", 10),
    ("data.batch_size", "08", 8),
    ("data.batch_size", "1_000", 1000),
    ("trainer.max_epochs", "010", 10),
    ("trainer.max_epochs", "1_0", 10),
    ("trainer.enable_progress_bar", "off", False),
    ("trainer.enable_progress_bar", "No", False),
    ("trainer.deterministic", "on", True),
    ("trainer.deterministic", "yes", True),
    ("trainer.limit_train_batches", "1e-1", 0.1),
    ("trainer.limit_train_batches", "010", 10),
    ("scaler.init_scale", "1e3", 1000.0),
    ("scaler.init_scale", "65_536", 65536.0),
    ("lr_scheduler", "~", None),
    ("seed_everything", "010", 10),
]


@pytest.mark.parametrize("place", ["command line", "config file"])
@pytest.mark.parametrize(("key", "text", "value"), TEXTS)
def test_a_value_that_old_yaml_reads_as_another(printed: Printed, key: str, text: str, value: Any, place: str) -> None:
    group, _, name = key.rpartition(".")
    Path("a.yaml").write_text(f"{group}:\n  {name}: {text}\n" if group else f"{name}: {text}\n")
    found: Any = printed(f"--{key}={text}" if place == "command line" else "--config=a.yaml")
    for part in key.split("."):
        found = found[part]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("place", ["command line", "config file"])
@pytest.mark.parametrize(
    ("name", "text", "number"), [("val_check_interval", "1:00:00:00", 216000), ("max_epochs", "1:30", 90)]
)
def test_a_number_that_is_written_like_a_time(refused: Refused, name: str, text: str, number: int, place: str) -> None:
    Path("a.yaml").write_text(f"trainer: {{{name}: {text}}}\n")
    where = "" if place == "command line" else " It is set by a.yaml."
    assert refused("fit", "--config=a.yaml" if where else f"--trainer.{name}={text}") == (
        f"mnist-amp: error: trainer.{name} can't be {text}, which would be read as {number}. Write a number as usual, "
        "and a time with two digits in each part, as in 01:00:00:00 (days:hours:minutes:seconds)."
        f"{where} See mnist-amp fit --help.\n"
    )


@pytest.mark.parametrize(("text", "value"), [("123", "123"), ("true", "True"), ("12.5", "12.5")])
def test_text_in_a_file_that_needs_quotes(refused: Refused, text: str, value: str) -> None:
    Path("a.yaml").write_text(f"data: {{data_dir: {text}}}\n")
    assert refused("fit", "--config=a.yaml") == (
        f"mnist-amp: error: data.data_dir can't be {value}; it takes str. In a file, put it in quotes. "
        "It is set by a.yaml. See mnist-amp fit --help.\n"
    )


def test_a_config_file_from_the_environment(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_AMP_CONFIG", "smoke.yaml")
    assert printed()["trainer"]["limit_train_batches"] == 8
    Path("own.yaml").write_text("trainer: {limit_train_batches: 3}")
    assert printed("--config=own.yaml")["trainer"]["limit_train_batches"] == 3
