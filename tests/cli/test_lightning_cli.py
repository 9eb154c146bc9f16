"""The command in this process: defaults, overrides, help and printed lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_amp import __version__
from tests.conftest import Refused, Run, simple_nn

SMOKE = ("--config", "configs/smoke.yaml")
Printed = Callable[..., str]


@pytest.fixture
def printed(run: Run, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run a command that only prints, such as --help; return the text."""

    def printed(*args: str) -> str:
        try:
            return run(*args)
        except SystemExit as done:
            status, text = done.code, capsys.readouterr().out
        assert status == 0
        return text

    return printed


@pytest.fixture
def settings(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return the settings of `mnist-amp fit` with these arguments."""
    for name in ("MNIST_AMP_DATA__DATA_DIR", "MNIST_AMP_TRAINER__ACCELERATOR"):
        monkeypatch.delenv(name)
    return lambda *args: yaml.safe_load(printed("fit", *args, "--print_config"))


def test_the_defaults_are_those_of_the_guide(settings: Callable[..., Any]) -> None:
    config = settings()
    assert config["network"] == simple_nn(128)
    assert config["model"] == {"lr_scheduler_interval": "epoch", "steps_per_execution": "auto"}
    assert {key: value for key, value in config["data"].items() if value is not None} == {
        **{"data_dir": "data", "dataset": "MNIST", "mean": 0.5, "std": 0.5, "batch_size": 64}
    }
    assert config["optimizer"]["class_path"] == "torch.optim.Adam"
    assert config["optimizer"]["init_args"]["lr"] == 0.001
    assert config["lr_scheduler"] is None
    assert config["seed_everything"] == 42
    trainer = config["trainer"]
    assert (trainer["max_epochs"], trainer["precision"], trainer["accelerator"]) == (5, "16-mixed", "auto")


def test_the_command_line_overrides_the_environment_and_that_overrides_files(
    settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(
        "{data: {batch_size: 1, val_size: 1}, network: {init_args: {hidden_dim: 1}}, seed_everything: 1}"
    )
    (tmp_path / "b.yaml").write_text("{data: {val_size: 2}, network: {hidden_dim: 2}, seed_everything: 2}")
    monkeypatch.setenv("MNIST_AMP_NETWORK__HIDDEN_DIM", "3")
    monkeypatch.setenv("MNIST_AMP_SEED_EVERYTHING", "3")
    config = settings("--seed_everything", "4", "--config", "a.yaml", "--config", "b.yaml")
    given = (config["data"]["batch_size"], config["data"]["val_size"])
    assert (*given, config["network"]["init_args"]["hidden_dim"], config["seed_everything"]) == (1, 2, 3, 4)


def test_an_optimizer_and_a_schedule_by_name(settings: Callable[..., Any]) -> None:
    config = settings(
        *("--optimizer", "SGD", "--optimizer.lr", "0.1", "--optimizer.momentum=0.9"),
        *("--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "2"),
    )
    assert config["optimizer"]["class_path"] == "torch.optim.SGD"
    assert (config["optimizer"]["init_args"]["lr"], config["optimizer"]["init_args"]["momentum"]) == (0.1, 0.9)
    assert config["lr_scheduler"]["init_args"]["step_size"] == 2
    assert settings("--optimizer.lr", "0.1")["optimizer"]["class_path"] == "torch.optim.Adam"


def test_a_printed_config_can_be_fed_back(printed: Printed, tmp_path: Path) -> None:
    text = printed("fit", "--optimizer=SGD", "--optimizer.lr=0.1", "--data.val_size=9", "--print_config")
    (tmp_path / "printed.yaml").write_text(text)
    assert printed("fit", "--config", "printed.yaml", "--print_config") == text


def test_version(printed: Printed) -> None:
    assert printed("--version") == f"mnist-amp {__version__}\n"


def test_help_has_one_line_for_each_command(printed: Printed) -> None:
    assert """
commands:
  fit       Train a network, or resume a run.
  validate  Evaluate a run on its validation images.
  test      Evaluate a run on the test images.
  predict   Write a run's predictions for the test images, or for your own images (--images).
  compare   Measure time, memory and accuracy in each precision, and recommend one for this machine.
  profile   Measure how long each part of a training step takes, and the precision of each operation.
  export    Write a run's network to files for other programs, each checked against the checkpoint.
  demo      Serve a local page: draw a digit, and see what a run's network reads in each precision.

options:
""" in printed("--help")


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_help_begins_with_this_projects_options(printed: Printed, subcommand: str) -> None:
    text = printed(subcommand, "--help")
    assert text.startswith(f"usage: mnist-amp {subcommand} [options]\n")
    titles = [
        *("\nNetwork:", "\nModel:", "\nData:", "\nOptimizer:", "\nLearning-rate schedule:"),
        *("\nTrainer, with", "\nCheckpoint:"),
    ]
    indices = [text.index(title) for title in titles]
    assert indices == sorted(indices)
    assert "known subclasses" not in text.partition("\nModel:")[0]
    for option in ("--network", "--data.batch_size", "--data.val_size", "--data.data_dir", "--ckpt_path"):
        described = text[text.index(f"  {option} ") :].split("(type:")[0]
        assert len(described.split()) > 5, option


def test_help_of_demo(printed: Printed) -> None:
    text = printed("demo", "--help")
    assert text.startswith("usage: mnist-amp demo [options]\n")
    assert "\n  --port PORT           port for the page on 127.0.0.1; 0 takes a free port\n" in text
    assert (
        "\n  --ckpt_path CKPT_PATH\n                        Checkpoint to use: `best` or `last` of the newest run,\n"
        in text
    )
    assert "return_predictions" not in text


def test_the_banner_reports_the_effective_precision(run: Run) -> None:
    # a CPU without instructions for bfloat16 has one line more
    lines = [line for line in run("fit", *SMOKE).splitlines() if not line.startswith("advice")]
    assert lines[0].startswith("device     CPU (")
    assert lines[1] == "precision  bf16-mixed (requested: 16-mixed, which is fp16 on a GPU and bfloat16 on a CPU)"
    assert lines[2].startswith(f"versions   mnist-amp {__version__}, python 3.")
    assert ", torch 2." in lines[2]
    assert ", lightning 2." in lines[2]
    assert lines[3:8] == [
        "network    SimpleNN (hidden_dim 128), 101,770 parameters",
        "data       MNIST, images of 1 x 28 x 28 in 10 classes",
        "seed       42",
        "execution  up to 50 optimizer steps per execution, for up to 0.1 s",
        "writes to  lightning_logs/version_0",
    ]


def test_the_last_lines_report_the_results_and_the_next_commands(run: Run) -> None:
    lines = run("fit", *SMOKE, "--trainer.default_root_dir", "here").splitlines()[-6:]
    assert lines[0].startswith("accuracy  ")
    assert lines[0].endswith("% on the validation images (best checkpoint, after 1 epoch)")
    assert lines[1].startswith("time      ")
    assert " samples/s (" in lines[1]
    assert lines[2:] == [
        "files     here/lightning_logs/version_0/ (model.pth, curves.png, metrics.csv, checkpoints/, config.yaml)",
        "next      mnist-amp test --trainer.default_root_dir here",
        "          mnist-amp fit --trainer.default_root_dir here --ckpt_path last --trainer.max_epochs 2",
        "          tensorboard --logdir here/lightning_logs",
    ]


def test_each_run_has_a_folder_of_its_own(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        run("fit", *SMOKE)
    assert {path.name for path in (tmp_path / "lightning_logs").iterdir()} == {"version_0", "version_1"}


def test_fast_dev_run_leaves_nothing(run: Run, tmp_path: Path) -> None:
    run("fit", "--trainer.fast_dev_run", "2")
    assert list(tmp_path.iterdir()) == []


def test_without_logger_and_checkpoints(run: Run, tmp_path: Path) -> None:
    run("fit", *SMOKE, "--trainer.logger", "false", "--trainer.enable_checkpointing", "false")
    assert [path.name for path in (tmp_path / "lightning_logs" / "version_0").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_never_evaluates_untrained_weights(refused: Refused, tmp_path: Path, subcommand: str) -> None:
    assert refused(subcommand) == (
        f"mnist-amp: error: there is no run with a checkpoint under {tmp_path / 'lightning_logs'}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_validate_is_refused_without_validation_images(run: Run, refused: Refused) -> None:
    run("fit", "--config", "configs/guide.yaml", *SMOKE)
    assert refused("validate") == (
        "mnist-amp: error: lightning_logs/version_0/checkpoints/best.ckpt was trained on all images, so no "
        "validation images are left. Use `mnist-amp test`.\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--network.hidden_dim", "-3"),
            "mnist-amp: error: network.hidden_dim is -3; it must be at least 1. See mnist-amp fit --help.\n",
        ),
        (
            ("--ckpt_path", "no.ckpt"),
            "mnist-amp: error: there is no checkpoint at no.ckpt. No run under lightning_logs has one.\n",
        ),
    ],
)
def test_an_error_is_one_line_and_leaves_no_file(
    refused: Refused, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    assert refused("fit", *args) == message
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_an_error_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_AMP_DEBUG", "1")
    with pytest.raises(ValueError, match="batch_size is 0"):
        run("fit", "--data.batch_size", "0")


MATMUL = "--trainer.callbacks=tests.seen.MatmulPrecision"


@pytest.mark.parametrize(("chosen", "tf32"), [("high", "tf32"), ("medium", "tf32"), ("highest", "ieee")])
def test_tf32_is_set_in_both_of_torchs_interfaces(run: Run, chosen: str, tf32: str) -> None:
    run("fit", "--config=configs/smoke.yaml", f"--matmul_precision={chosen}", MATMUL)
    assert Path("matmul").read_text() in (f"{chosen}, {tf32}", f"{chosen}, none")


def test_test_takes_over_the_matmul_precision_of_the_run(run: Run, fitted: Run) -> None:
    fitted("--config=configs/smoke.yaml", "--matmul_precision=high")
    run("test", MATMUL)
    assert Path("matmul").read_text().startswith("high, ")
