"""The settings of loggers: where they send the metrics, and which run of a tracker they continue."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace
from lightning.pytorch.loggers import MLFlowLogger

from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.errors import UsageError, warn
from mnist_amp.runs import resume
from mnist_amp.runs.checkpoint_contents import RunInfo, tracked_runs
from mnist_amp.runs.guarded_logger import without_passwords
from mnist_amp.runs.trackers import default_of, has_mlflow_run, lacks_mlflow_run
from mnist_amp.runs.trust import is_inherited, logger_options

# the parameters of Lightning's loggers that name a run of a tracker; the first is the one to set
RUN_OPTIONS = {"MLFlowLogger": ("run_id",), "WandbLogger": ("id", "version"), "CometLogger": ("experiment_key",)}
PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}  # each is an extra of the same name
ADDRESS, MLFLOW = "tracking_uri", "MLFLOW_TRACKING_URI"
MLFLOW_STORE = "sqlite:///mlflow.db"  # MLflow's own default, in the current folder
# a server that can't be reached delays a run by a part of a minute; with the packages' own settings by several
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "WANDB_INIT_TIMEOUT": "20"}


def without_environment(logger: Any) -> Any:
    """Return the setting `trainer.logger` without the addresses that Lightning took from the environment.

    They are not a part of the configuration: they may hold a password, and the next command may have another
    environment.
    """
    if isinstance(logger, list):
        return list(map(without_environment, logger))
    ambient = os.environ.get(MLFLOW), default_of(MLFlowLogger, ADDRESS)
    if _name(logger) != "MLFlowLogger" or logger.init_args.get(ADDRESS) not in ambient:
        return logger
    logger = logger.clone()
    logger.init_args[ADDRESS] = None
    return logger


def completed(logger: Namespace, start: StartingCheckpoint | None, command: str) -> Namespace:
    """Return the settings of a logger with what the command adds to them.

    An MLFlowLogger without an address gets that of the environment now (Lightning knows that of its import), or
    MLflow's own default. An evaluation continues the tracker's run of its checkpoint, if the logger is the one of that
    run.

    Args:
        logger: its class_path and init_args, `without_environment`.
        start: the checkpoint that the command starts from.
        command: `fit`, `validate` or `test`.

    Raises:
        UsageError: the logger's package is not installed; or the address of an MLFlowLogger is not one, or does not
            have the run that is named.
    """
    own, logger, name = logger, logger.clone(), _name(logger)
    if (package := PACKAGES.get(name)) is not None and find_spec(package) is None:
        raise UsageError(f"{name} needs {package}. Install the extra: pip install 'mnist-amp[{package}]'.", "")
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    if name == "WandbLogger":
        # W&B's own process keeps the folder that was the current one when it began
        logger.init_args.save_dir = str(Path(logger.init_args.get("save_dir") or ".").absolute())
    if name == "MLFlowLogger":
        logger.init_args[ADDRESS] = logger.init_args.get(ADDRESS) or os.environ.get(MLFLOW) or MLFLOW_STORE
        _check_mlflow(logger.init_args)
    run = None if start is None or command == "fit" or names_run(logger) else tracked_runs(start.content).get(name)
    if start is not None and run is not None:
        if _is_of(start, own) and _knows(logger, run, str(RunInfo.of(start.content).folder)):
            logger.init_args[RUN_OPTIONS[name][0]] = run
        else:
            warn(f"{name} begins a new run, because its settings do not lead to {run}, the run that trained.")
    return logger


class LoggerOptions(NamedTuple):
    """The options, each after a space, with which the next command logs to the same tracker.

    Attributes:
        to_test: for an evaluation.
        to_fit: for a resumed fit; empty if it takes the logger over from the checkpoint.
    """

    to_test: str
    to_fit: str


NO_OPTIONS = LoggerOptions("", "")


def repeated(loggers: list[Namespace]) -> LoggerOptions:
    """Return the options that give a tracker's logger again; nothing for files, and for several loggers.

    Examples:
        >>> mlflow = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"experiment_name": "x"}}
        >>> repeated([mlflow]).to_test
        ' --trainer.logger MLFlowLogger --trainer.logger.experiment_name x'
        >>> repeated([mlflow]).to_fit
        ''
    """
    if len(loggers) != 1 or _name(loggers[0]) not in RUN_OPTIONS:
        return NO_OPTIONS
    logger = {"class_path": loggers[0]["class_path"], "init_args": _arguments(loggers[0])}
    options = "".join(f" {option}" for option in logger_options(logger))
    return LoggerOptions(options, "" if is_inherited(logger) else options)


def _check_mlflow(settings: Namespace) -> None:
    address, run = settings[ADDRESS], settings.get("run_id")
    if "://" not in address and not address.startswith("databricks"):
        raise UsageError(
            f"MLflow can't be reached at {address}, which is no address. Write http://{address} for a server, or "
            f"{MLFLOW_STORE} for a file, in trainer.logger.{ADDRESS} or the variable {MLFLOW}.",
            "",
        )
    if run is not None and lacks_mlflow_run(address, run):
        raise UsageError(f"trainer.logger.run_id is {run}, but {without_passwords(address)} has no such run.", "")


def _knows(logger: Namespace, run: str, folder: str) -> bool:
    """Whether a logger's tracker has the run that trained; W&B is not asked, because it may be offline."""
    return _name(logger) != "MLFlowLogger" or has_mlflow_run(logger.init_args[ADDRESS], run, folder)


def names_run(logger: Any) -> bool:
    """Whether the settings of a logger, a class_path and init_args, name a run that exists, and so are continued."""
    arguments = _arguments(logger)
    if _name(logger) == "TensorBoardLogger" and (version := arguments.get("version")) is not None:
        folder = version if isinstance(version, str) else f"version_{version}"
        return Path(arguments["save_dir"], arguments.get("name") or "", folder).is_dir()
    return any(arguments.get(option) is not None for option in RUN_OPTIONS.get(_name(logger), ()))


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
