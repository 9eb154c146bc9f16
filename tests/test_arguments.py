from pathlib import Path

import pytest

from mnist_amp.arguments import arrange, shipped_configs


def test_configs_come_first_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["fit", "--data.val_size", "9", "--config", "a.yaml", "--optimizer=SGD", "-c", "b.yaml", "--config=c.yaml"]
    env = {"MNIST_AMP_TRAINER__MAX_EPOCHS": "2", "MNIST_AMP_DATA__VAL_SIZE": "8", "HOME": "/", "MNIST_AMP_DEBUG": "1"}
    assert arrange(args, env) == [
        "fit",
        "--config=a.yaml",
        "--config=b.yaml",
        "--config=c.yaml",
        "--data.val_size=8",
        "--trainer.max_epochs=2",
        "--data.val_size",
        "9",
        "--optimizer=SGD",
    ]


@pytest.mark.parametrize("args", [[], ["--help"], ["--version"]])
def test_without_a_subcommand_nothing_is_added(args: list[str]) -> None:
    assert arrange(args, {"MNIST_AMP_DATA__VAL_SIZE": "8"}) == args


def test_what_goes_before_the_subcommand_stays_there() -> None:
    args = ["--config", "all.yaml", "fit", "--data.val_size=9", "--config=x.yaml"]
    assert arrange(args, {}) == ["--config", "all.yaml", "fit", "--config=x.yaml", "--data.val_size=9"]


def test_a_config_without_its_value_is_left_to_the_parser() -> None:
    assert arrange(["fit", "--config"], {}) == ["fit", "--config"]


@pytest.mark.parametrize("name", ["configs/guide.yaml", "guide.yaml"])
def test_finds_shipped_configs_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert arrange(["fit", "--config", name], {}) == ["fit", f"--config={shipped_configs() / 'guide.yaml'}"]


def test_a_config_that_is_here_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide.yaml").touch()
    assert arrange(["fit", "-c", "guide.yaml"], {}) == ["fit", "--config=guide.yaml"]
