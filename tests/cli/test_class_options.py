"""A variable of the environment, whose name is in capitals, sets parameters as classes spell them."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_amp.cli.arguments import arrange, source
from mnist_amp.cli.class_options import restore_capitals
from tests.conftest import Refused, Run

OWN = """
from lightning.pytorch import Callback

class Base(Callback):
    def __init__(self, Gamma: float = 1.0) -> None: ...

class Own(Base):
    def __init__(self, N_steps: int = 1, lr: float = 0.1, LR: float = 0.2, **kwargs) -> None:
        super().__init__(**kwargs)

def made(nHead: int): ...
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("capitals_own.py").write_text(OWN)


@pytest.mark.parametrize(
    ("named", "variable", "key"),
    [
        ("--lr_scheduler=CosineAnnealingLR", "LR_SCHEDULER__T_MAX", "lr_scheduler.T_max"),
        ("--lr_scheduler=CosineAnnealingLR", "LR_SCHEDULER__INIT_ARGS__T_MAX", "lr_scheduler.init_args.T_max"),
        ("--lr_scheduler=torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", *2 * ("",)),
        ("--lr_scheduler=CosineAnnealingWarmRestarts", "LR_SCHEDULER__T_0", "lr_scheduler.T_0"),
        ("--lr_scheduler=CosineAnnealingWarmRestarts", "LR_SCHEDULER__T_MULT", "lr_scheduler.T_mult"),
        ("--lr_scheduler={class_path: CosineAnnealingLR}", "LR_SCHEDULER__T_MAX", "lr_scheduler.T_max"),
        ("--config={lr_scheduler: {class_path: CosineAnnealingLR}}", "LR_SCHEDULER__T_MAX", "lr_scheduler.T_max"),
        ("--trainer.callbacks=capitals_own.Own", "TRAINER__CALLBACKS__N_STEPS", "trainer.callbacks.N_steps"),
        ("--trainer.callbacks=capitals_own.Own", "TRAINER__CALLBACKS__GAMMA", "trainer.callbacks.Gamma"),
        ("--trainer.callbacks=capitals_own.Own", "TRAINER__CALLBACKS__LR", "trainer.callbacks.lr"),
        ("--trainer.callbacks+=capitals_own.Own", "TRAINER__CALLBACKS__N_STEPS", "trainer.callbacks.N_steps"),
        (
            "--config={trainer: {callbacks: [{class_path: EarlyStopping}, capitals_own.Own]}}",
            *("TRAINER__CALLBACKS__N_STEPS", "trainer.callbacks.N_steps"),
        ),
        ("--anything=capitals_own.made", "ANYTHING__NHEAD", "anything.nHead"),
        ("--anything=no_such_module.X", "ANYTHING__NHEAD", "anything.nhead"),
        ("--optimizer=capitals_own.Own", "LR_SCHEDULER__T_MAX", "lr_scheduler.t_max"),  # not of this option
        ("--optimizer=SGD", "OPTIMIZER__LR", "optimizer.lr"),
    ],
)
def test_the_spelling_of_a_class(named: str, variable: str, key: str) -> None:
    env = {f"MNIST_AMP_{variable}": "Abc"} if variable else {}
    args = arrange(["fit", named], env)[1:]
    found = restore_capitals(args, env)
    assert sorted(found) == sorted([named, *([f"--{key}=Abc"] if variable else [])])
    assert source(found, env, key) == next(iter(env), None)


def test_the_command_line_is_not_changed() -> None:
    args = ["--lr_scheduler=CosineAnnealingLR", "--lr_scheduler.t_max=3"]
    assert restore_capitals(args, {}) == args


def test_a_schedule_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"": "CosineAnnealingLR", "__T_MAX": "3"}.items():
        monkeypatch.setenv(f"MNIST_AMP_LR_SCHEDULER{name}", value)
    run("fit", "--config=smoke.yaml")
    config: Any = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
    assert config["lr_scheduler"]["init_args"]["T_max"] == 3
    # the class comes from the checkpoint
    del os.environ["MNIST_AMP_LR_SCHEDULER"]
    monkeypatch.setenv("MNIST_AMP_LR_SCHEDULER__T_MAX", "5")
    printed = run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert "lr_scheduler.T_max 3 -> 5" in printed


def test_a_wrong_value_names_its_variable(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_AMP_LR_SCHEDULER__T_MAX", "many")
    assert refused("fit", "--lr_scheduler=CosineAnnealingLR") == (
        "mnist-amp: error: lr_scheduler.T_max can't be many; it takes int. It is set by MNIST_AMP_LR_SCHEDULER__T_MAX. "
        "See mnist-amp fit --help.\n"
    )
