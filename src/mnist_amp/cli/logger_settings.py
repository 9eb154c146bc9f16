"""The settings of loggers: where they send the metrics, and which run of a tracker they continue."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.runs import resume
from mnist_amp.runs.checkpoint_contents import tracked_runs

# the parameters of Lightning's loggers that name a run, which exists already; the first is the one to set
RUN_OPTIONS = {
    "MLFlowLogger": ("run_id",),
    "WandbLogger": ("id", "version"),
    "CometLogger": ("experiment_key",),
    "CSVLogger": ("version",),
    "TensorBoardLogger": ("version",),
}
MLFLOW_STORE = "sqlite:///mlflow.db"  # MLflow's own default, in the current folder
# a server that can't be reached delays a run by seconds; with MLflow's own settings by minutes
MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def names_run(logger: Any) -> bool:
    """Whether the settings of a logger, a class_path and init_args, name the run that it logs to."""
    arguments = _arguments(logger)
    return any(arguments.get(option) is not None for option in RUN_OPTIONS.get(_name(logger), ()))


def completed(logger: Namespace, start: StartingCheckpoint | None, command: str) -> Namespace:
    """Return the settings of a logger with what the command adds to them.

    An MLFlowLogger without an address gets MLflow's own, which Lightning does not know. (Lightning reads the variable
    MLFLOW_TRACKING_URI itself.) An evaluation continues the
    tracker's run of its checkpoint, if the logger is the one of that run.

    Args:
        logger: its class_path and init_args.
        start: the checkpoint that the command starts from.
        command: `fit`, `validate` or `test`.
    """
    logger, name = logger.clone(), _name(logger)
    run = None if start is None or command == "fit" else tracked_runs(start.content).get(name)
    if run is not None and not names_run(logger) and start is not None and _is_of(start, logger):
        logger.init_args[RUN_OPTIONS[name][0]] = run
    if name == "WandbLogger":
        # W&B's own process keeps the folder that was the current one when it began
        logger.init_args.save_dir = str(Path(logger.init_args.get("save_dir") or ".").absolute())
    if name == "MLFlowLogger":
        logger.init_args.tracking_uri = logger.init_args.get("tracking_uri") or MLFLOW_STORE
        for variable, value in MLFLOW_PATIENCE.items():
            os.environ.setdefault(variable, value)
    return logger


def _is_of(start: StartingCheckpoint, logger: Namespace) -> bool:
    """Whether the run of a checkpoint has a logger with these settings."""
    before = resume.saved_settings(start.content)["trainer"].get("logger")
    candidates = before if isinstance(before, list) else [before]
    return any(_name(each) == _name(logger) and _settings(each) == _settings(logger) for each in candidates)


def _settings(logger: Any) -> dict[str, Any]:
    """Return the settings of a logger that are not empty, without the one that names a run."""
    runs = RUN_OPTIONS.get(_name(logger), ())
    return {key: value for key, value in _arguments(logger).items() if key not in runs and value is not None}


def _name(logger: Any) -> str:
    return str(logger.get("class_path")).rpartition(".")[2] if isinstance(logger, Mapping | Namespace) else ""


def _arguments(logger: Any) -> dict[str, Any]:
    arguments = logger.get("init_args") if isinstance(logger, Mapping | Namespace) else None
    return dict(arguments.items()) if isinstance(arguments, Mapping | Namespace) else {}
