"""The run of a tracker that a logger continues, and where an MLFlowLogger sends the metrics."""

import os
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from mnist_amp.cli import logger_settings
from mnist_amp.cli.logger_settings import MLFLOW_STORE, completed, names_run
from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.runs import resume
from mnist_amp.runs.checkpoint_contents import TRACKERS_KEY


def logger(kind: str, **settings: Any) -> Namespace:
    arguments = Namespace(**settings)  # type: ignore[no-untyped-call]
    return Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=arguments)  # type: ignore[no-untyped-call]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> StartingCheckpoint:
    """Return a checkpoint of a run with an MLFlowLogger and a WandbLogger."""
    runs = {"MLFlowLogger": "a1", "WandbLogger": "b2"}
    saved = [
        {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"experiment_name": "x", "run_id": None}},
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "y", "offline": True}},
    ]
    monkeypatch.setattr(resume, "saved_settings", lambda content: {"trainer": {"logger": saved}})
    return StartingCheckpoint(Path("best.ckpt"), {TRACKERS_KEY: runs}, {})


@pytest.mark.parametrize(
    ("given", "option", "run"),
    [
        (logger("WandbLogger", project="y", offline=True, id=None, version=None), "id", "b2"),
        (logger("WandbLogger", project="y", offline=True, id="mine"), "id", "mine"),
        (logger("WandbLogger", project="y", offline=True, version="mine"), "id", None),
        (logger("WandbLogger", project="other", offline=True), "id", None),
        (logger("MLFlowLogger", experiment_name="x", tracking_uri=None), "run_id", "a1"),
        (logger("MLFlowLogger", experiment_name="x", tracking_uri="http://127.0.0.1:1"), "run_id", None),
        (logger("CometLogger", experiment_key=None), "experiment_key", None),
    ],
)
def test_an_evaluation_continues_the_run_that_trained(
    start: StartingCheckpoint, given: Namespace, option: str, run: str | None
) -> None:
    before = given.clone()
    assert completed(given, start, "test").init_args.get(option) == run
    assert given == before
    mine = given.init_args.get(option)
    assert completed(given, start, "fit").init_args.get(option) == mine  # a resumed fit begins a run
    assert completed(given, None, "test").init_args.get(option) == mine


def test_the_address_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in logger_settings.MLFLOW_PATIENCE:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    assert completed(logger("MLFlowLogger", tracking_uri=None), None, "fit").init_args.tracking_uri == MLFLOW_STORE
    given = completed(logger("MLFlowLogger", tracking_uri="http://127.0.0.1:1"), None, "fit")
    assert given.init_args.tracking_uri == "http://127.0.0.1:1"
    found = {variable: os.environ[variable] for variable in logger_settings.MLFLOW_PATIENCE}
    assert found == {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "99"}


def test_settings_that_name_a_run() -> None:
    assert names_run(logger("CSVLogger", save_dir="logs", version=3))
    assert names_run(logger("CSVLogger", save_dir="logs", version=0))
    assert not names_run(logger("CSVLogger", save_dir="logs", version=None))
    assert not names_run(logger("SomeLogger", version=3))
    assert not names_run(True)
