"""Options that name a class: the class begins with its own defaults, and not with settings of a former class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_amp.cli.class_defaults import with_own_defaults
from tests.conftest import Refused, Run
from tests.runs.test_exact import UNSCHEDULED, last

ADAMW = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults


def printed(run: Run, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """Return the configuration that `fit` with these arguments prints."""
    with pytest.raises(SystemExit):
        run("fit", *args, "--print_config")
    read: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return read


@pytest.mark.parametrize(
    "args",
    [
        ("--optimizer=AdamW", "--optimizer.lr=0.002"),
        ("--optimizer", "AdamW", "--optimizer.lr", "0.002"),
        ("--optimizer.lr=0.002", "--optimizer=AdamW"),
        ("--optimizer=torch.optim.AdamW", "--optimizer.lr=0.002"),
        ("--optimizer={class_path: torch.optim.AdamW, init_args: {lr: 0.002}}",),
        ("--config=adamw.yaml",),
        ("--config=adam.yaml", "--config=adamw.yaml"),
        ("--config=adam.yaml", "--optimizer=AdamW", "--optimizer.lr=0.002"),
        ("--config=adamw.yaml", "--optimizer=AdamW"),
        ("--config=adamw.yaml", "--optimizer.lr=0.002"),
    ],
)
def test_adamw_has_its_own_weight_decay(run: Run, capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    Path("adamw.yaml").write_text("optimizer: {class_path: AdamW, init_args: {lr: 0.002}}")
    Path("adam.yaml").write_text("optimizer: {class_path: Adam, init_args: {lr: 0.5, weight_decay: 0.3, eps: 0.1}}")
    optimizer = printed(run, capsys, *args)["optimizer"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    expected = {key: ADAMW[key] for key in ("weight_decay", "eps", "amsgrad")} | {"lr": 0.002}
    assert {key: optimizer["init_args"][key] for key in expected} == expected


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD"])
def test_each_optimizer_has_its_own_defaults(run: Run, capsys: pytest.CaptureFixture[str], name: str) -> None:
    init_args = printed(run, capsys, f"--optimizer={name}")["optimizer"]["init_args"]
    defaults = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).defaults
    for key, value in init_args.items():
        if key in defaults:
            assert (tuple(value) if isinstance(value, list) else value) == pytest.approx(defaults[key]), key


def test_the_environment_and_the_command_line(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_AMP_OPTIMIZER__WEIGHT_DECAY", "0.2")
    assert printed(run, capsys, "--optimizer=AdamW")["optimizer"]["init_args"]["weight_decay"] == 0.2
    monkeypatch.setenv("MNIST_AMP_OPTIMIZER", "SGD")
    assert printed(run, capsys)["optimizer"]["init_args"]["weight_decay"] == 0.2


def test_a_schedule_on_resume_has_its_own_defaults(run: Run) -> None:
    """The rates of the resumed run show it: StepLR's gamma of 0.5 would give MultiStepLR another factor than 0.1."""
    step = ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5")
    run("fit", *UNSCHEDULED, *step, "--trainer.max_epochs=1")
    multi = ("--lr_scheduler=MultiStepLR", "--lr_scheduler.milestones=[1]")
    out = run("fit", "--ckpt_path=last", *multi, "--trainer.max_epochs=2")
    assert "lr_scheduler StepLR -> MultiStepLR" in out
    assert last(1)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.0001)
    run(
        "fit", "--ckpt_path=last", "--lr_scheduler=MultiStepLR", "--trainer.max_epochs=3"
    )  # the same class keeps its own
    assert last(2)["hyper_parameters"]["lr_scheduler"]["init_args"]["milestones"] == [1]


def test_a_logger_of_another_class(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("logger.yaml").write_text(
        "trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: a, name: b}}}"
    )
    own = ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=c")
    logger = printed(run, capsys, "--config=logger.yaml", *own)["trainer"]["logger"]
    assert (logger["init_args"]["save_dir"], logger["init_args"]["name"]) == ("c", "lightning_logs")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], []),
        (["--optimizer.lr=1"], ["--optimizer.lr=1"]),
        (["--optimizer=Adam"], ["--optimizer=Adam"]),
        (["--optimizer=torch.optim.Adam"], ["--optimizer=torch.optim.Adam"]),
        (["--optimizer={init_args: {lr: 1}}"], ["--optimizer={init_args: {lr: 1}}"]),
        (["--optimizer=null"], ["--optimizer=null"]),
        (["--optimizer"], ["--optimizer"]),
        (["--optimizer={"], ["--optimizer={"]),
        (["--trainer.logger=false"], ["--trainer.logger=false"]),
        (["--lr_scheduler=StepLR"], ["--lr_scheduler=StepLR"]),
        (["--data.seed=1", "--optimizer=SGD"], ["--optimizer=null", "--optimizer=SGD", "--data.seed=1"]),
    ],
)
def test_arguments(args: list[str], expected: list[str]) -> None:
    assert with_own_defaults(["fit", *args]) == ["fit", *expected]


def test_a_wrong_name_is_still_reported(refused: Refused) -> None:
    assert "optimizer can't be Adm (did you mean Adam?)" in refused("fit", "--optimizer=Adm", "--optimizer.lr=1")


def test_config_files_in_their_order() -> None:
    files = [f"--config={json.dumps({'optimizer': name})}" for name in ("Adam", "SGD", "SGD", "Adam")]
    clear = "--config={optimizer: null}"
    assert with_own_defaults(["fit", *files]) == ["fit", files[0], clear, *files[1:3], clear, files[3]]
