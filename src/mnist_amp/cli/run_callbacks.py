"""The callbacks of a run: what each command adds to the Trainer."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.loggers import Logger

from mnist_amp.cli import settings
from mnist_amp.cli.logger_settings import NO_OPTIONS, LoggerOptions, names_run
from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.reporting.banner import Banner
from mnist_amp.reporting.evaluation_report import EvaluationReport
from mnist_amp.reporting.fit_summary import FitSummary
from mnist_amp.reporting.prediction_writer import PredictionWriter
from mnist_amp.reporting.progress_bar import ProgressBar
from mnist_amp.reporting.tracking import EvaluationTracking, FitTracking
from mnist_amp.runs import checkpoint_contents, checkpoint_files, folders, resume
from mnist_amp.runs.config_text import parse_yaml
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.random_states import RandomStates
from mnist_amp.runs.resumed_logs import ResumedLogs
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trackers import flattened
from mnist_amp.training.averaged_weights import TRAINED_WEIGHTS, SavedAverage
from mnist_amp.training.callback_progress import CallbackProgress, Ending
from mnist_amp.training.cuda_graph import HOOKS_WITHIN_STEP, has_hook
from mnist_amp.training.gradient_scaler import ScalerSettings
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor
from mnist_amp.training.preflight import Preflight
from mnist_amp.training.terminate_on_nan import TerminateOnNaN


def make_banner(
    subcommand: str,
    config: Namespace,
    start: StartingCheckpoint | None,
    changes: list[str],
    more: Mapping[str, str],
) -> Banner:
    """Return the callback that prints the first lines of a run.

    Args:
        subcommand: of Lightning's.
        config: the settings of the run.
        start: the checkpoint that it starts from.
        changes: settings of the checkpoint's run that are overridden.
        more: further lines, by name.
    """
    seeded = config.seed_everything is not False
    lines = {"seed": str(config.seed_everything) if seeded else "none for the weights (random), 0 for the images"}
    lines |= more
    if start:
        # a fit resumes from the trained weights
        average = ", averaged weights" if TRAINED_WEIGHTS in start.content and subcommand != "fit" else ""
        lines["checkpoint"] = f"{start.path} ({checkpoint_contents.described_progress(start.content)}{average})"
    if changes:
        lines["changed"] = ", ".join(changes)
    if subcommand == "fit" and (ends := settings.endless(config.trainer)):
        lines["ends"] = ends
    precision = None if config.trainer.plugins else config.trainer.precision
    return Banner(precision, lines, start.content if start and subcommand == "fit" else None)


def make_run_folder(config: str, start: StartingCheckpoint | None, trainer: Namespace) -> RunFolder:
    """Return the callback that makes the run's folder; `config` is the configuration to write there, as YAML."""
    source = f"# resumed from {start.path}\n" if start else ""
    root = Path(trainer.default_root_dir or ".")
    is_default = trainer.logger in (None, True)
    return RunFolder(root, source + config, csv=trainer.logger is not False, tensorboard=is_default)


def make_preflight(start: StartingCheckpoint | None) -> Preflight:
    return Preflight(None if start is None else (str(start.path), start.content))


def make_progress_bar(trainer: Namespace) -> list[Callback]:
    """Return the progress bar; none if it is disabled, or if the user gives another."""
    disabled = trainer.enable_progress_bar is False or trainer.barebones
    given = any(isinstance(callback, LightningProgressBar) for callback in as_list(trainer.callbacks))
    return [] if disabled or given else [ProgressBar()]


def training_callbacks(
    run: RunFolder,
    trainer: Namespace,
    lr_scheduler: Namespace | None,
    every_n_train_steps: int,
    scaler: dict[str, Any],
    continued: Collection[Logger] = (),
    again: LoggerOptions = NO_OPTIONS,
) -> list[Callback]:
    """Return the callbacks that watch a fit, save it and sum it up.

    Args:
        run: its folder.
        trainer: settings of the Trainer.
        lr_scheduler: class_path and init_args of the learning-rate schedule; None for none.
        every_n_train_steps: optimizer steps between two checkpoints.
        scaler: settings of the gradient scaler that are overridden.
        continued: loggers that continue a run, which has the earlier metrics already.
        again: the options with which other commands log to the same tracker.
    """
    steps = partial(_next_steps, trainer, lr_scheduler, again)
    monitor = LossScaleMonitor(scaler)
    if trainer.enable_checkpointing is False:
        return [monitor, TerminateOnNaN(None), ResumedLogs(run, continued), FitSummary(run, None, steps)]
    checkpoint = RunCheckpoint(run, every_n_train_steps)
    summary = FitSummary(run, checkpoint, steps)
    return [monitor, TerminateOnNaN(checkpoint), checkpoint, RandomStates(), ResumedLogs(run, continued), summary]


def make_callback_progress(
    made: Namespace, settings: Namespace, start: StartingCheckpoint | None
) -> list[CallbackProgress]:
    """Return the callback that prepares the progress of the other callbacks; none for a fit from scratch.

    Args:
        made: settings of the Trainer, with the callbacks as objects.
        settings: the same with the callbacks as class_path and init_args.
        start: the checkpoint to resume from.
    """
    if start is None:
        return []
    before = resume.by_class(as_list(resume.inherited_settings(start.content, "fit")["trainer"].get("callbacks")))
    given = as_list(settings.as_dict().get("callbacks"))
    pairs = zip(as_list(made.callbacks), given, strict=True)
    overridden = [(callback, _overridden(before.get(type(callback).__name__), item)) for callback, item in pairs]
    return [CallbackProgress(str(start.path), start.content, [pair for pair in overridden if pair[1]])]


def _overridden(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a class that differ from those before; empty if there was no such class."""
    if before is None:
        return {}
    old = before.get("init_args", {})
    return {name: value for name, value in now.get("init_args", {}).items() if name in old and value != old[name]}


def with_saved_averages(callbacks: list[Callback]) -> list[Callback]:
    """Return the callbacks, with one that saves the averaged weights after each StochasticWeightAveraging."""
    checkpoint = next((callback for callback in callbacks if isinstance(callback, RunCheckpoint)), None)
    averages = [callback for callback in callbacks if isinstance(callback, StochasticWeightAveraging)]
    return [*callbacks, *(SavedAverage(average, checkpoint) for average in averages)]


def overridden_scaler_settings(given: ScalerSettings, start: StartingCheckpoint | None) -> dict[str, Any]:
    """Return the settings of the gradient scaler that differ from those of the checkpoint's run."""
    before = {} if start is None else start.settings.get("scaler", {})
    return {name: value for name, value in given.given().items() if value != before.get(name)}


def make_fit_tracking(run: RunFolder, callbacks: list[Callback], start: StartingCheckpoint | None) -> FitTracking:
    """Return the callback that gives the loggers what belongs to a fit besides its metrics.

    Args:
        run: its folder, with its configuration.
        callbacks: of the fit; among them the one that writes the checkpoints, if there is one.
        start: the checkpoint that it resumes.
    """
    checkpoint = next((callback for callback in callbacks if isinstance(callback, RunCheckpoint)), None)
    origin = None if start is None else (str(start.path), checkpoint_contents.tracked_runs(start.content))
    return FitTracking(run, checkpoint, flattened(parse_yaml(run.config, "config.yaml")), origin)


def make_evaluation_tracking(report: Callback, loggers: Any, config: str) -> list[Callback]:
    """Return the callback that gives the loggers what belongs to an evaluation besides its metrics.

    Args:
        report: the callback that writes its files. There is nothing to give for one of another kind.
        loggers: settings of the loggers. One that continues a run has the settings of that run already.
        config: the resolved configuration, as YAML.
    """
    if not isinstance(report, EvaluationReport) or not isinstance(loggers, list):
        return []
    settings = {} if any(map(names_run, loggers)) else flattened(parse_yaml(config, "the configuration"))
    return [EvaluationTracking(settings and settings | {"checkpoint": report.checkpoint}, report)]


def make_report(subcommand: str, start: StartingCheckpoint) -> Callback:
    """Return the callback that writes the results of `validate`, `test` or `predict`."""
    folder = checkpoint_files.folder_of(start.path) / f"{subcommand}_{start.path.stem}"
    trained = checkpoint_contents.RunInfo.of(start.content).precision
    if subcommand == "predict":
        return PredictionWriter(folder, trained)
    epochs, step = checkpoint_contents.known_progress(start.content) or (None, None)
    return EvaluationReport(
        folder, command=subcommand, checkpoint=str(start.path), epochs=epochs, step=step, trained_precision=trained
    )


def hide_unused_hooks(callback: Callback) -> None:
    """Hide the batch hooks that a callback does not override: each call costs time, even of an empty hook."""
    for hook in ("on_train_batch_start", "on_train_batch_end", *HOOKS_WITHIN_STEP):
        if not has_hook(callback, hook):
            setattr(callback, hook, None)


def as_list(given: Any) -> list[Any]:
    """Return a setting of the Trainer that may be nothing, one value or several values."""
    return [] if given is None else [*given] if isinstance(given, list) else [given]


def _next_steps(
    trainer: Namespace, lr_scheduler: Namespace | None, again: LoggerOptions, ending: Ending | None
) -> list[str]:
    """Return the commands that a user may want after a fit, which a callback may have ended."""
    root = f" --trainer.default_root_dir {trainer.default_root_dir}" if trainer.default_root_dir else ""
    steps = []
    if trainer.enable_checkpointing is not False:
        steps.append(f"mnist-amp test{root}{again.to_test}")
        longer = _longer(trainer, lr_scheduler) if ending is None else _after(ending, as_list(trainer.callbacks))
        if longer is not None:
            steps.append(f"mnist-amp fit{root} --ckpt_path last{longer}{again.to_fit}")
    if trainer.logger in (None, True):
        steps.append(f"tensorboard --logdir {folders.logs_dir(Path(trainer.default_root_dir or '.'))}")
    return steps


def _after(ending: Ending, callbacks: list[Callback]) -> str | None:
    """Return the options with which a fit that a callback has ended is resumed; None if a short option can't do it."""
    if ending.setting is None:
        return ""
    # an option of trainer.callbacks is of the last one
    is_last = callbacks[-1:] == [ending.callback]
    return f" --trainer.callbacks.{ending.setting.name} {ending.setting.value}" if is_last else None


def _longer(trainer: Namespace, lr_scheduler: Namespace | None) -> str | None:
    """Return the options that make a fit and its schedule twice as long; None if a short option can't do it."""
    more = 2 * (trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 5)
    settings = {} if lr_scheduler is None else lr_scheduler.as_dict().get("init_args", {})
    # a schedule of schedules has several lengths; a stochastic average may begin at a share of the epochs
    averages = any(isinstance(callback, StochasticWeightAveraging) for callback in as_list(trainer.callbacks))
    if "schedulers" in settings or averages:
        return None
    lengths = [(name, settings[name]) for name in ("T_max", "total_steps", "epochs") if settings.get(name)]
    return f" --trainer.max_epochs {more}" + "".join(f" --lr_scheduler.{name} {2 * length}" for name, length in lengths)
