"""The run of a tracker that a logger continues, and where an MLFlowLogger sends the metrics."""

import os
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from mnist_amp.cli import logger_settings
from mnist_amp.cli.logger_settings import (
    MLFLOW_STORE,
    NO_OPTIONS,
    PATIENCE,
    completed,
    names_run,
    repeated,
    without_environment,
)
from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.errors import UsageError
from mnist_amp.runs import resume
from mnist_amp.runs.checkpoint_contents import FOLDER_KEY, TRACKERS_KEY


def logger(kind: str, **settings: Any) -> Namespace:
    arguments = Namespace(**settings)  # type: ignore[no-untyped-call]
    return Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=arguments)  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are completed here without the packages."""
    monkeypatch.setattr(logger_settings, "find_spec", lambda package: True)


@pytest.mark.parametrize(("kind", "package"), [("MLFlowLogger", "mlflow"), ("WandbLogger", "wandb")])
def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    monkeypatch.setattr(logger_settings, "find_spec", lambda package: None)
    with pytest.raises(UsageError) as raised:
        completed(logger(kind), None, "fit")
    assert str(raised.value) == f"{kind} needs {package}. Install the extra: pip install 'mnist-amp[{package}]'."


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> StartingCheckpoint:
    """Return a checkpoint of a run with an MLFlowLogger and a WandbLogger."""
    runs = {"MLFlowLogger": "a1", "WandbLogger": "b2"}
    saved = [
        {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"experiment_name": "x", "run_id": None}},
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "y", "offline": True}},
    ]
    monkeypatch.setattr(resume, "saved_settings", lambda content: {"trainer": {"logger": saved}})
    known = (MLFLOW_STORE, "a1", "/runs/version_0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(logger_settings, "has_mlflow_run", lambda *run: run == known)
    return StartingCheckpoint(Path("best.ckpt"), {TRACKERS_KEY: runs, FOLDER_KEY: "/runs/version_0"}, {})


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
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    unset = logger("MLFlowLogger", tracking_uri=None)
    assert completed(unset, None, "fit").init_args.tracking_uri == MLFLOW_STORE
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # after Lightning was imported
    assert completed(unset, None, "fit").init_args.tracking_uri == "http://127.0.0.1:1"
    given = logger("MLFlowLogger", tracking_uri="http://127.0.0.1:2")
    assert completed(given, None, "fit").init_args.tracking_uri == "http://127.0.0.1:2"


def test_an_address_without_its_beginning() -> None:
    with pytest.raises(UsageError) as raised:
        completed(logger("MLFlowLogger", tracking_uri="127.0.0.1:5000"), None, "fit")
    assert str(raised.value) == (
        "MLflow can't be reached at 127.0.0.1:5000, which is no address. Write http://127.0.0.1:5000 for a server, or "
        "sqlite:///mlflow.db for a file, in trainer.logger.tracking_uri or the variable MLFLOW_TRACKING_URI."
    )


def test_the_address_of_the_environment_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning fills it in, and it may hold a password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    filled = logger("MLFlowLogger", tracking_uri="http://me:secret@127.0.0.1:1")
    assert without_environment(filled) == logger("MLFlowLogger", tracking_uri=None)
    given = logger("MLFlowLogger", tracking_uri="http://127.0.0.1:2")
    assert without_environment(given) is given
    assert without_environment(logger("CSVLogger", save_dir="logs")) == logger("CSVLogger", save_dir="logs")


def test_the_patience_that_the_user_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PATIENCE:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    completed(logger("MLFlowLogger", tracking_uri=None), None, "fit")
    assert {variable: os.environ[variable] for variable in PATIENCE} == PATIENCE | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "99"}
    for variable in PATIENCE:
        monkeypatch.delenv(variable)


def test_the_options_for_the_next_command() -> None:
    ours = logger("MLFlowLogger", experiment_name="my runs", run_id="a", tracking_uri=None, log_model=False)
    assert repeated([ours]) == (
        " --trainer.logger MLFlowLogger --trainer.logger.experiment_name 'my runs'",
        "",  # a resumed fit takes it over
    )
    elsewhere = " --trainer.logger MLFlowLogger --trainer.logger.tracking_uri http://127.0.0.1:1"
    assert repeated([logger("MLFlowLogger", tracking_uri="http://127.0.0.1:1")]) == (elsewhere, elsewhere)
    assert repeated([logger("CSVLogger", save_dir="logs")]) == NO_OPTIONS
    assert repeated([ours, ours]) == repeated([]) == NO_OPTIONS


def test_settings_that_name_a_run(tmp_path: Path) -> None:
    assert names_run(logger("MLFlowLogger", run_id="a"))
    assert not names_run(logger("CSVLogger", save_dir=tmp_path, version=3))  # a folder that exists is refused
    for version, folder in ((0, "version_0"), ("mine", "mine")):
        events = logger("TensorBoardLogger", save_dir=tmp_path, name="x", version=version)
        assert not names_run(events)
        (tmp_path / "x" / folder).mkdir(parents=True)
        assert names_run(events)
    assert not names_run(logger("SomeLogger", version=3))
    assert not names_run(True)
