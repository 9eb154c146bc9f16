"""Trackers take more than metrics, each in its own way: settings, files, and the result of a run.

A tracker is a program that collects runs, such as MLflow, W&B or TensorBoard. Lightning has a logger for each, but no
common way to give it a file or a note. A logger without a class here gets all that Lightning's own methods take.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mnist_amp.lightning_internals import LogRow, metric_prefix
from mnist_amp.runs.guarded_logger import Guarded

IMAGE = ".png"
LARGEST_BATCH = 1000  # metrics that MLflow takes in one request


class Tracker:
    """A logger and what it takes besides metrics.

    Args:
        logger: one of Lightning's. If it is guarded, no method here raises an error of its own.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def add_settings(self, settings: dict[str, Any]) -> None:
        """Add settings by their dotted names. Lightning's loggers take those of one run in several calls."""
        self.logger.log_hyperparams(settings)

    def add_rows(self, rows: Iterable[LogRow]) -> None:
        """Add rows of metrics that another run has logged."""
        for row in rows:
            self.logger.log_metrics(row.metrics, step=row.step)

    def add_file(self, path: Path) -> None:
        """Add a plot or a text file. Lightning's loggers have no common method for it."""

    def add_result(self, settings: dict[str, Any], best: str, metrics: dict[str, float]) -> None:
        """Add the result of a fit.

        Args:
            settings: of the run.
            best: path of the best checkpoint.
            metrics: of that checkpoint, by name.
        """
        self.logger.log_hyperparams({"best_checkpoint": best, **_named(metrics)})

    def close(self) -> None:
        """End the tracker's run in this process, after the logger has ended it."""


class TensorBoard(Tracker):
    logger: TensorBoardLogger

    def add_settings(self, settings: dict[str, Any]) -> None:
        super().add_settings(settings)  # only into hparams.yaml
        rows = (f"| {name} | {_cell(value)} |" for name, value in settings.items())
        self.logger.experiment.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def add_file(self, path: Path) -> None:
        writer = self.logger.experiment
        if path.suffix != IMAGE:
            writer.add_text(path.name, "\n".join(f"    {line}" for line in path.read_text("utf-8").splitlines()))
            return
        from PIL import Image

        with Image.open(path) as image:
            writer.add_image(path.stem, np.asarray(image.convert("RGB")), dataformats="HWC")

    def add_result(self, settings: dict[str, Any], best: str, metrics: dict[str, float]) -> None:
        self.logger.experiment.add_text("best_checkpoint", best)
        # its table of runs lists a run only with metrics beside the settings
        self.logger.log_hyperparams(settings, _named(metrics))


class MLflow(Tracker):
    logger: MLFlowLogger

    def add_settings(self, settings: dict[str, Any]) -> None:
        # MLflow refuses to change a parameter, such as one of a run that is continued
        known = self.logger.experiment.get_run(self.logger.run_id).data.params
        super().add_settings({name: value for name, value in settings.items() if name not in known})

    def add_rows(self, rows: Iterable[LogRow]) -> None:
        # a server takes as long for a thousand metrics as for one
        from mlflow.entities import Metric

        now, prefix = int(time.time() * 1000), metric_prefix(self.logger)
        values = [(f"{prefix}{name}", value, row.step) for row in rows for name, value in row.metrics.items()]
        metrics = [Metric(name, value, now, step) for name, value, step in values]
        for start in range(0, len(metrics), LARGEST_BATCH):
            self.logger.experiment.log_batch(self.logger.run_id, metrics=metrics[start : start + LARGEST_BATCH])

    def add_file(self, path: Path) -> None:
        self.logger.experiment.log_artifact(self.logger.run_id, str(path))

    def add_result(self, settings: dict[str, Any], best: str, metrics: dict[str, float]) -> None:
        # a tag and not a parameter, which MLflow never changes
        self.logger.experiment.set_tag(self.logger.run_id, "best_checkpoint", best)
        for name, value in _named(metrics).items():
            self.logger.experiment.log_metric(self.logger.run_id, name, value)


class Wandb(Tracker):
    logger: WandbLogger

    def add_file(self, path: Path) -> None:
        if path.suffix == IMAGE:
            self.logger.log_image(path.stem, [str(path)])
        else:
            self.logger.experiment.save(str(path), base_path=str(path.parent), policy="now")

    def add_result(self, settings: dict[str, Any], best: str, metrics: dict[str, float]) -> None:
        self.logger.experiment.summary.update({"best_checkpoint": best, **_named(metrics)})

    def close(self) -> None:
        self.logger.experiment.finish()  # or the next fit in this process would log to the same run


TRACKERS: dict[type[Logger], type[Tracker]] = {
    TensorBoardLogger: TensorBoard,
    MLFlowLogger: MLflow,
    WandbLogger: Wandb,
}


def tracker_of(logger: Logger) -> Tracker:
    """Return the tracker of a logger.

    Examples:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> type(tracker_of(TensorBoardLogger("logs"))).__name__, type(tracker_of(CSVLogger("logs"))).__name__
        ('TensorBoard', 'Tracker')
    """
    return next((kind for base, kind in TRACKERS.items() if isinstance(logger, base)), Tracker)(logger)


def add_to(logger: Logger, what: str, *args: Any) -> None:
    """Call a method of a logger's tracker, such as `add_file`. The errors of a guarded logger end there."""
    method = getattr(tracker_of(logger), what)
    if isinstance(logger, Guarded):
        logger.attempt(method, *args)
    else:
        method(*args)


def run_id(logger: Logger) -> str | None:
    """Return the identifier that a tracker gave the run; None for files of this machine, and if the logger failed."""
    version = logger.version if isinstance(logger, Guarded) else None
    return None if version is None else str(version)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by the names that their options have.

    Examples:
        >>> flattened({"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}}, "ids": [1, 2]})
        {'optimizer': 'torch.optim.Adam', 'optimizer.lr': 0.001, 'ids': [1, 2]}
        >>> flattened({"callbacks": [{"class_path": "Timer", "init_args": {"interval": "step"}}]})
        {'callbacks.0': 'Timer', 'callbacks.0.interval': 'step'}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key == "class_path":
            flat[prefix.removesuffix(".")] = value
        elif isinstance(value, Mapping) and value:
            flat |= flattened(value, prefix if key == "init_args" else f"{name}.")
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            flat |= flattened({str(index): part for index, part in enumerate(value)}, f"{name}.")
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value  # as in YAML
    return flat


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"best/{name}": value for name, value in metrics.items()}


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
