from pathlib import Path

import pytest

from mnist_amp.cli.arguments import SUBCOMMANDS, arrange, peek, shipped_configs, source, written
from mnist_amp.errors import RequestError


def test_config_files_come_first_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("{}")
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


def test_options_before_the_command_are_refused() -> None:
    with pytest.raises(RequestError, match=r"^options come after the command: mnist-amp fit --config all.yaml -h$"):
        arrange(["--config", "all.yaml", "fit", "-h"], {})


def test_a_config_without_its_value_is_left_to_the_parser() -> None:
    assert arrange(["fit", "--config"], {}) == ["fit", "--config"]


@pytest.mark.parametrize("name", ["configs/guide.yaml", "guide.yaml"])
def test_finds_the_packages_configs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert arrange(["fit", "--config", name], {}) == ["fit", f"--config={shipped_configs() / 'guide.yaml'}"]


def test_a_config_in_this_folder_goes_before_one_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide.yaml").write_text("{}")
    assert arrange(["fit", "-c", "guide.yaml"], {}) == ["fit", "--config=guide.yaml"]


def test_finds_the_value_of_an_option_and_where_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("{data: {val_size: 7}, optimizer: {class_path: SGD, init_args: {lr: 0.5}}}")
    env = {"MNIST_AMP_DATA__SEED": "8"}
    args = arrange(["fit", "-c", "a.yaml", "--data.batch_size", "9", "--network.hidden_dim=3"], env)
    found = {
        key: (peek(args, key), source(args, env, key)) for key in ("data.val_size", "data.seed", "data.batch_size")
    }
    assert found == {
        "data.val_size": (7, "a.yaml"),
        "data.seed": ("8", "MNIST_AMP_DATA__SEED"),
        "data.batch_size": ("9", None),
    }
    assert (peek(args, "optimizer.lr"), source(args, env, "optimizer.lr")) == (0.5, "a.yaml")
    assert (peek(args, "trainer.devices"), source(args, env, "trainer.devices")) == (None, None)


@pytest.mark.parametrize(
    ("args", "arranged"),
    [
        (["--lr_scheduler=X", "--lr_scheduler.a=9"], ["--lr_scheduler=X", "--lr_scheduler.a=1", "--lr_scheduler.a=9"]),
        (["--lr_scheduler", "X", "--seed=1"], ["--lr_scheduler", "X", "--lr_scheduler.a=1", "--seed=1"]),
        (["--lr_scheduler", "X"], ["--lr_scheduler", "X", "--lr_scheduler.a=1"]),
        (["--lr_schedule=X"], ["--lr_scheduler.a=1", "--lr_schedule=X"]),
    ],
)
def test_a_parameter_in_the_environment_comes_after_its_class(args: list[str], arranged: list[str]) -> None:
    assert arrange(["fit", *args], {"MNIST_AMP_LR_SCHEDULER__A": "1"})[1:] == arranged


def test_the_options_as_they_are_written() -> None:
    args = ["--config={a: {class_path: X, init_args: {b: 1:30}}, c: [on]}", "--print_config", "--d=1", "--e", "2", "f"]
    assert list(written(args)) == [
        *(("a.class_path", "X"), ("a.b", "1:30"), ("c", ["on"])),
        *(("print_config", "--d=1"), ("d", "1"), ("e", "2")),
    ]
    assert list(written([])) == []


def test_a_file_for_a_group_of_options_is_stronger_than_the_environment() -> None:
    assert arrange(["fit", "--trainer=a.yaml"], {"MNIST_AMP_TRAINER__MAX_EPOCHS": "1"})[1:] == [
        *("--trainer.max_epochs=1", "--trainer=a.yaml")
    ]


@pytest.mark.parametrize("command", SUBCOMMANDS)
@pytest.mark.parametrize("level", SUBCOMMANDS)
def test_each_command_refuses_a_file_with_the_level_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, level: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"{level}: {{trainer: {{max_epochs: 1}}}}")
    with pytest.raises(RequestError, match=rf"^a\.yaml has the level `{level}:`\. Leave it out: "):
        arrange([command, "--config=a.yaml"], {})
