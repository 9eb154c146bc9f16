"""The callback that gives each logger what belongs to a run besides its metrics."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from mnist_amp.reporting.evaluation_report import FILES, EvaluationReport
from mnist_amp.runs.checkpoint_contents import TRACKERS_KEY
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trackers import add_to, run_id
from mnist_amp.training.precision import described_precision, device_name, versions

CURVES, CONFIG = "curves.png", "config.yaml"


class FitTracking(Callback):
    """Gives each logger every setting of a fit, its precision and versions, its curves, and its best checkpoint.

    The callback must come after the one that draws the curves, and the `RunFolder` must come before both.

    Args:
        run: the folder of the run.
        checkpoint: the callback that writes the checkpoints; None if no checkpoints are written.
        settings: of the run, by dotted name.
        resumed_from: the checkpoint that the run resumes, and the runs of trackers that it belongs to, by the class of
            the logger; None for a run from scratch.
    """

    def __init__(
        self,
        run: RunFolder,
        checkpoint: RunCheckpoint | None,
        settings: dict[str, Any],
        resumed_from: tuple[str, dict[str, str]] | None = None,
    ) -> None:
        self.run, self.checkpoint, self.settings, self.resumed_from = run, checkpoint, settings, resumed_from

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.settings = self.settings | facts_of(trainer) | {"run_folder": str(self.run.path.absolute())}
        for logger in loggers_of(trainer):
            add_to(logger, "add_settings", self.settings | self._origin(type(logger).__name__))
            add_to(logger, "add_file", self.run.path / CONFIG)

    def _origin(self, kind: str) -> dict[str, str]:
        if self.resumed_from is None:
            return {}
        path, runs = self.resumed_from
        return {"resumed_from": path} | ({"resumed_from_run": runs[kind]} if kind in runs else {})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        runs = {type(logger).__name__: run_id(logger) for logger in trainer.loggers}
        checkpoint[TRACKERS_KEY] = {kind: run for kind, run in runs.items() if run is not None}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.checkpoint is None or not self.checkpoint.best.is_file():
            return
        score = self.checkpoint.best_model_score
        metrics = {} if score is None else {str(self.checkpoint.monitor): score.item()}
        for logger in loggers_of(trainer):
            add_to(logger, "add_file", self.run.path / CURVES)
            add_to(logger, "add_result", self.settings, str(self.checkpoint.best.absolute()), metrics)


class EvaluationTracking(Callback):
    """Gives each logger the files of an evaluation, such as the confusion matrix, and its settings.

    The callback must come after the one that writes the files.

    Args:
        settings: by dotted name; empty if the loggers continue the tracker's run that trained.
        report: the callback that writes the files.
    """

    def __init__(self, settings: dict[str, Any], report: EvaluationReport) -> None:
        self.settings, self.report = settings, report

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add(trainer)

    def _add(self, trainer: Trainer) -> None:
        for logger in loggers_of(trainer):
            if self.settings:
                add_to(logger, "add_settings", self.settings | facts_of(trainer))
            for path in self._files():
                add_to(logger, "add_file", path)

    def _files(self) -> list[Path]:
        folder = self.report.written
        return [] if folder is None else [folder / name for name in FILES]


def loggers_of(trainer: Trainer) -> list[Logger]:
    """Return the loggers of a Trainer; none in the other processes of a distributed run, which write nothing."""
    return trainer.loggers if trainer.is_global_zero else []


def facts_of(trainer: Trainer) -> dict[str, Any]:
    """Return the device, the effective precision and the versions of a run, by dotted name."""
    packages = {f"versions.{package}": version for package, version in versions().items()}
    return {"effective.device": device_name(trainer), "effective.precision": described_precision(trainer), **packages}
