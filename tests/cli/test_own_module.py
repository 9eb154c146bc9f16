"""A LightningModule and a LightningDataModule of the user's, by name."""

import sys
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule

from mnist_amp.__main__ import main
from mnist_amp.cli import own_module
from mnist_amp.errors import RequestError
from tests.conftest import Refused, Run, files

MODULE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader


class Lit(LightningModule):
    def __init__(self, width=8, lr=0.1):
        super().__init__()
        self.net, self.lr = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1)), lr

    def training_step(self, batch, batch_idx):
        return self.net(batch["x"]).square().mean()


class WithOptimizer(Lit):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class Data(LightningDataModule):
    def __init__(self, batch_size=4):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader([{"x": torch.ones(4)}] * 32, batch_size=self.batch_size)


class Net(nn.Module):
    pass
"""
QUICK = ("--steps=3", "--warmup=1")
BOTH = ("--model=foreign.WithOptimizer", "--data=foreign.Data")


@pytest.fixture
def foreign(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a module of the user's into the current folder."""
    (tmp_path / "foreign.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    monkeypatch.delenv("MNIST_AMP_DATA__DATA_DIR")  # a setting of this project's data


@pytest.mark.usefixtures("foreign")
def test_parameters_are_options_and_config_files_name_the_classes(run: Run, tmp_path: Path) -> None:
    printed = run("profile", *QUICK, *BOTH, "--model.width=3", "--data.batch_size=2")
    assert "\nsetting    WithOptimizer (width 3, lr 0.1), batch_size 2, SGD\n" in printed
    (tmp_path / "mine.yaml").write_text(
        "model: {class_path: foreign.WithOptimizer, init_args: {lr: 0.5}}\ndata: {class_path: foreign.Data}\n"
    )
    printed = run("profile", *QUICK, "--config=mine.yaml", "--model.width=3")
    assert "\nsetting    WithOptimizer (width 3, lr 0.5), batch_size 4, SGD\n" in printed


@pytest.mark.usefixtures("foreign")
def test_the_environment_sets_parameters_of_the_classes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_AMP_DATA__BATCH_SIZE", "2")
    monkeypatch.setenv("MNIST_AMP_MODEL", "foreign.WithOptimizer")
    monkeypatch.setenv("MNIST_AMP_MODEL__WIDTH", "5")
    printed = run("profile", *QUICK, "--data", "foreign.Data")
    assert "\nsetting    WithOptimizer (width 5, lr 0.1), batch_size 2, SGD\n" in printed


@pytest.mark.usefixtures("foreign")
def test_the_options_optimizer_and_lr_scheduler_replace_those_of_the_module(run: Run) -> None:
    printed = run("profile", *QUICK, *BOTH, "--optimizer=AdamW", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1")
    assert "\nsetting    WithOptimizer (width 8, lr 0.1), batch_size 4, AdamW\n" in printed


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model=foreign.WithOptimizer",),
            "model is a class of your own, foreign.WithOptimizer, so data must be one as well: give a "
            "LightningDataModule, as in --data my_package.MyLightningDataModule.",
        ),
        (
            ("--data=foreign.Data",),
            "data is a class of your own, foreign.Data, so model must be one as well: give a LightningModule, as in "
            "--model my_package.MyLightningModule.",
        ),
        (
            ("--model=foreign.Lt", "--data=foreign.Data"),
            "foreign has no Lt (did you mean Lit?). It has LightningModule, Lit, WithOptimizer.",
        ),
        (
            ("--model=foreign.Net", "--data=foreign.Data"),
            "foreign.Net is not a LightningModule, so it can't be the model. A network is given with --network.",
        ),
        (
            ("--model=foreign.Lit", "--data=foreign.Lit"),
            "foreign.Lit is not a LightningDataModule, so it can't be the data.",
        ),
        (
            ("--model=Lit", "--data=foreign.Data"),
            "model is Lit, which is not the name of a class with its module. Give it as in --model my_package.Lit.",
        ),
        (
            ("--model=nowhere.Lit", "--data=foreign.Data"),
            "there is no module nowhere. Install the package that it is in, or run the command in its folder.",
        ),
        (
            (*BOTH, "--network=CNN"),
            "network is CNN, but foreign.WithOptimizer has its own. Leave out --network, or both --model and --data.",
        ),
        (
            (*BOTH, "--model.widht=3"),
            "model: WithOptimizer takes no widht (did you mean width?); it takes width, lr. See mnist-amp profile "
            "--help.",
        ),
        (
            ("--model=foreign.Lit", "--data=foreign.Data"),
            "Lit has no configure_optimizers. Write one, or give --optimizer Adam --optimizer.lr 0.001.",
        ),
        (
            (*BOTH, "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"),
            "lr_scheduler needs an optimizer. Give --optimizer as well.",
        ),
        (
            (*BOTH, "--trainer.accumulate_grad_batches=0"),
            "trainer.accumulate_grad_batches is 0; it must be at least 1. See mnist-amp profile --help.",
        ),
    ],
)
def test_wrong_requests_are_refused(refused: Refused, options: tuple[str, ...], message: str) -> None:
    assert refused("profile", *QUICK, *options).splitlines()[-1] == f"mnist-amp: error: {message}"


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("command", ["fit", "test", "export"])
def test_other_commands_train_networks_only(refused: Refused, tmp_path: Path, command: str) -> None:
    assert refused(command, *BOTH) == (
        "mnist-amp: error: model and data can't be classes of your own in this command: only compare and profile take "
        "them. Train a network of your own with --network, on your own images with --data.folder or --data.dataset.\n"
    )
    assert files(tmp_path) == {"foreign.py"}


def test_the_optimizers_of_manual_optimization_are_not_replaced() -> None:
    module = LightningModule()
    module.automatic_optimization = False
    with pytest.raises(RequestError, match=r"^optimizer can't replace those of LightningModule, which optimizes man"):
        own_module.check_optimizer(module, {"optimizer": {"class_path": "Adam"}})


@pytest.mark.usefixtures("foreign")
def test_help_shows_the_options_of_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", *BOTH, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Your LightningModule, by name, with its parameters as in --model.width 64." in printed
    assert "--network" not in printed
