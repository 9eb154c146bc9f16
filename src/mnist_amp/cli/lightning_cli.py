"""The LightningCLI of fit, validate and test; the other commands extend it.

Its parts: the options in `parser` and `trainer_options`, the ranges of settings in `settings`, the checkpoint to start
from in `starting_checkpoint`, the callbacks in `run_callbacks`, the messages in `error_messages` and `help_texts`.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from mnist_amp import signals
from mnist_amp.cli import help_texts, launchers, own_module, processes, run_callbacks, settings
from mnist_amp.cli.arguments import class_given, peek, source, written
from mnist_amp.cli.class_options import restore_capitals
from mnist_amp.cli.initial_weights import InitialWeights
from mnist_amp.cli.logger_settings import completed, names_run, repeated, without_environment
from mnist_amp.cli.parser import SEED, Parser, add_core_arguments, add_fit_arguments, add_process_arguments
from mnist_amp.cli.silenced import silence
from mnist_amp.cli.starting_checkpoint import StartingCheckpoint
from mnist_amp.data import ClassificationDataModule
from mnist_amp.errors import RequestError, RunError, UsageError, warn
from mnist_amp.lightning_internals import (
    OpenCLI,
    ignore_slurm_checkpoints,
    is_restoring,
    log_no_hyperparameters,
    set_sigterm_handler,
)
from mnist_amp.module import LitClassifier
from mnist_amp.networks.factory import resolve
from mnist_amp.reporting.report_folder import Report
from mnist_amp.runs import resume
from mnist_amp.runs.checkpoint_io import AtomicCheckpointIO
from mnist_amp.runs.config_text import without_objects
from mnist_amp.runs.guarded_logger import guard
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trackers import tracker_of
from mnist_amp.training import gradient_scaler
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor
from mnist_amp.training.precision import set_matmul_precision
from mnist_amp.wording import counted

if TYPE_CHECKING:
    from mnist_amp.reporting.result import Result

# if a run may have trained on images that are held out now: a command warns if it is known by these, see `resume.Seen`.
# A resumed fit does not repeat the warning of the fit before; `validate` refuses what its own run trained on
WARNED = {
    "fit": ("its run",),
    "test": ("its run", "an earlier run"),
    "validate": ("an earlier run", "unknown"),
}


class MnistAmpCLI(OpenCLI):
    """Lightning's command line over LitClassifier and ClassificationDataModule.

    A command that starts from a checkpoint takes over the settings of its run; files, the environment and the command
    line override them.

    Args:
        args: the command and its arguments, in the order of `arrange`.

    Attributes:
        launch: the processes of the run, if a launcher has started them.
        start: the checkpoint that the command starts from; None for a fit from scratch.
        changes: settings of that checkpoint's run that are overridden.
        weights: those that a new run begins with; None for random ones.
    """

    name = ""  # of the command, if it is not one of Lightning's

    def __init__(self, args: list[str]) -> None:
        self.command = args[0]
        self.name = self.name or self.command
        self.launch = launchers.detect(os.environ)
        self.start: StartingCheckpoint | None = None
        self.changes: list[str] = []
        self.weights: InitialWeights | None = None
        self.config_text = ""  # the resolved configuration, as YAML, for those who keep it
        self.logger_settings: list[Namespace] = []  # of the user's loggers
        # a program's seed_everything has set it, or a shell; this command has a seed of its own, or none
        os.environ.pop("PL_GLOBAL_SEED", None)
        super().__init__(
            LitClassifier,
            ClassificationDataModule,
            save_config_callback=None,  # RunFolder saves the configuration
            seed_everything_default=SEED,
            parser_kwargs={
                "prog": "mnist-amp",
                "allow_abbrev": False,
                self.command: {"allow_abbrev": False},  # jsonargparse 4.50 does not pass it on
            },
            parser_class=Parser,
            auto_configure_optimizers=False,  # the module makes its optimizers from plain values
            load_from_checkpoint_support=False,  # the hyperparameters are plain values already
            args=args,
        )

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """The content of the checkpoint that the command starts from."""
        return None if self.start is None else self.start.content

    # the options

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # only the requested one: to make the options of one takes a tenth of a second
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_process_arguments(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_core_arguments(parser, trains=self.command == "fit")

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        self.add_command_arguments()

    def add_command_arguments(self) -> None:
        """Add the options that only this command has."""
        parser = self.subcommand_parsers[self.command]
        if self.command == "fit":
            add_fit_arguments(parser)
        if self.command in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # EvaluationReport prints the metrics
        help_texts.describe(self.subcommand_parsers)

    # the settings

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        try:
            self._parse(parser, args)
        except UsageError as error:
            text = str(error).removeprefix('Parser key "config": ')
            where = self._where_set(args, error.key or text.partition(" ")[0], text)
            raise RequestError(
                f"{text}{f' It is set by {where}.' if where else ''} See mnist-amp {self.name} --help."
            ) from error

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        subcommand, *own = args
        InitialWeights.check_arguments(own)
        check_network(own)
        self.start = StartingCheckpoint.find(self.name, subcommand, own)
        if self.start is None and self.name == "fit":  # a requeued job resumes, although its command names weights
            self.weights = InitialWeights.find(own)
        inherited = [each.as_argument() for each in (self.start, self.weights) if each is not None]
        self.config = parser.parse_args([subcommand, *inherited, *restore_capitals(own, os.environ, inherited)])
        trainer = self.config[subcommand].trainer
        trainer.logger = without_environment(trainer.logger)
        if self.launch is not None:
            processes.use_all(self.launch, self.config[subcommand].trainer, own)
        if self.start is not None:
            # with its folder: Lightning gives words such as `last` and `hpc` a meaning of their own
            path = str(self.start.path) if self.start.path.parent != Path() else f"./{self.start.path}"
            self.config[subcommand].ckpt_path, self.config[subcommand].weights_only = path, True
            self.changes = self.start.changes(subcommand, self.config[subcommand])
        config = self.config[subcommand]
        if subcommand != "fit":
            config.data.extra_folder = None  # only a fit uses these images, and the folder may have been moved
        if self.weights is not None:
            self.weights.apply_settings(config)
        settings.check_times(config.as_dict(), written(own))
        settings.check(config.as_dict())
        if config.seed_everything is True:
            config.seed_everything = processes.choose_seed(self.launch, config.trainer.num_nodes)

    def _where_set(self, args: list[str], key: str, text: str) -> str | None:
        """Return the file, environment variable or checkpoint that sets an option; None for the command line."""
        where = source(args, os.environ, key, text)
        if where is not None or self.start is None or peek(args, key) is not None:
            return where
        return "the checkpoint" if peek([self.start.as_argument()], key) is not None else None

    def train_size(self, settings: Mapping[str, Any] | None = None) -> int:
        """Return the number of images that a fit trains on.

        Args:
            settings: of the data; by default those of this command line.
        """
        own = self.config[self.subcommand].data.as_dict()
        data = ClassificationDataModule(**(own if settings is None else settings))
        return data.train_size - data.val_size

    # the model, the data and the Trainer

    def before_instantiate_classes(self) -> None:
        processes.meet_others(self.launch, self.config[self.subcommand].trainer.num_nodes)
        set_matmul_precision(self.config[self.subcommand].matmul_precision)

    def instantiate_classes(self) -> None:
        trainer = self.config[self.subcommand].trainer
        has_loggers = trainer.logger not in (None, True, False)
        if self.subcommand == "fit" or has_loggers:
            self.config_text = self._config_text()  # as it was given
        if has_loggers:
            self.logger_settings = run_callbacks.as_list(trainer.logger)
            trainer.logger = [completed(logger, self.start, self.command) for logger in self.logger_settings]
        super().instantiate_classes()
        log_no_hyperparameters(self.model, self.datamodule)
        if self.start:
            self._check_data(self.start)
            resume.check_network(self.start.path, self.start.content, self.model.state_dict())
            resume.check_loops(self.start.path, self.start.content, self.trainer.fit_loop.state_dict())

    def _check_data(self, start: StartingCheckpoint) -> None:
        """Check that the images fit the checkpoint, and whether its run has held the validation images out."""
        data = self.datamodule
        resume.check_data(start.path, start.content, data.classes, data.image_shape)
        saved = start.content.get("datamodule_hyper_parameters", {})
        if self.command == "fit" and data.train_size != saved.get("train_size", data.train_size):
            warn(
                f"the data have {data.train_size:,} training images, and had {saved['train_size']:,}: the run is not "
                "continued exactly."
            )
        extra = saved.get("extra_size", 0)
        if self.command == "fit" and extra and data.extra_size not in (0, extra):
            images = counted(data.extra_size, "image")
            warn(f"{data.hparams['extra_folder']} has {images}, and had {extra}: the run is not continued exactly.")
        self._check_held_out(start, saved)

    def _check_held_out(self, start: StartingCheckpoint, saved: Mapping[str, Any]) -> None:
        data = self.datamodule
        if self.name == "validate" and data.val_size == 0:
            cause = f"{start.path} was trained on all images" if saved.get("val_size") == 0 else "data.val_size is 0"
            raise RequestError(f"{cause}, so no validation images are left. Use `mnist-amp test`.")
        seen = resume.seen_images(start.path, saved, data.hparams, self._seed_option())
        if seen is None:
            return
        if self.name == "validate" and seen.by == "its run":
            raise RequestError(seen.message)
        data.mark_as_seen(test=seen.test)
        if seen.by in WARNED.get(self.name, ()):
            warn(seen.message + " There is no temperature." * (data.val_size > 0 and self.name != "fit"))

    def _seed_option(self) -> str:
        """Return the option that sets the seed of the validation images."""
        return "seed_everything" if self.config[self.subcommand].data.seed is None else "data.seed"

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand].trainer
        logger = False if config.logger in (None, True) else config.logger  # RunFolder adds the default loggers
        trainer = self.make_trainer(self._callbacks(), logger=logger, **kwargs)
        for each in trainer.loggers:
            guard(each, tracker_of(each).close)
        given = self.config_init["fit"].scaler.given() if self.subcommand == "fit" else {}
        if given and gradient_scaler.scaler_of(trainer) is None:
            names = ", ".join(f"scaler.{name}" for name in given)
            warn(f"{names} has no effect: gradients are not scaled in {trainer.precision_plugin.precision}.")
        return trainer

    def _callbacks(self) -> list[Callback]:
        init = self.config_init[self.subcommand]
        if self.weights is not None:
            self.weights.check_classes(self.datamodule.classes)
            self.weights.load_into(self.model)
            self.weights.check_held_out(self.datamodule, self._seed_option())
        lines = {"processes": self.launch, "weights": self.weights}
        texts = {name: str(line) for name, line in lines.items() if line is not None}
        banner = run_callbacks.make_banner(self.command, self.config[self.subcommand], self.start, self.changes, texts)
        # before the reports, because it must be closed before they print
        progress_bar = run_callbacks.make_progress_bar(init.trainer)
        if init.trainer.barebones or init.trainer.fast_dev_run:
            return [banner, *progress_bar]
        if self.subcommand != "fit":
            report, given = self.make_report(), self.config[self.subcommand]
            return [
                *(banner, *progress_bar, report),
                *run_callbacks.make_evaluation_tracking(report, given.trainer.logger, self.config_text),
            ]
        folder = run_callbacks.make_run_folder(self.config_text, self.start, init.trainer)
        training = run_callbacks.training_callbacks(
            folder,
            init.trainer,
            self.config["fit"].lr_scheduler,
            init.checkpoint.every_n_train_steps,
            run_callbacks.overridden_scaler_settings(init.scaler, self.start),
            self._continued(),
            repeated(self.logger_settings),
        )
        tracking = run_callbacks.make_fit_tracking(folder, training, self.start)
        # the banner names the folder, which is made after the preflight
        progress = run_callbacks.make_callback_progress(init.trainer, self.config["fit"].trainer, self.start)
        return [run_callbacks.make_preflight(self.start), *progress, folder, banner, *progress_bar, *training, tracking]

    def _continued(self) -> list[Logger]:
        """Return the loggers whose settings name the run that they log to."""
        made, given = (config["fit"].trainer.logger for config in (self.config_init, self.config))
        pairs = zip(run_callbacks.as_list(made), run_callbacks.as_list(given), strict=True)
        return [logger for logger, settings in pairs if names_run(settings)]

    def make_report(self) -> Callback:
        """Return the callback that writes the results of an evaluation."""
        assert self.start is not None
        return run_callbacks.make_report(self.command, self.start)

    def _config_text(self) -> str:
        config = self.config[self.subcommand].clone()
        # or a command with this configuration would start from there again
        config.ckpt_path = None
        if self.subcommand == "fit":
            config.weights, config.weights_strict = None, True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jsonargparse, about objects in it
            return without_objects(self.subcommand_parsers[self.command].dump(config, skip_unset=False))

    def make_trainer(self, callbacks: list[Callback], **replaced: Any) -> Trainer:
        """Make the Trainer of the settings.

        Args:
            callbacks: go before the callbacks that the settings name.
            replaced: replace other settings of the Trainer.

        Raises:
            MisconfigurationException: the settings do not go together, or not with this machine.
        """
        config = self.config_init[self.subcommand].trainer
        callbacks = run_callbacks.with_saved_averages([*callbacks, *run_callbacks.as_list(config.callbacks)])
        for callback in callbacks:
            run_callbacks.hide_unused_hooks(callback)
        plugins = run_callbacks.as_list(config.plugins)
        if self.launch is not None:
            plugins += processes.environment_of(self.launch)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **replaced)
        except (ValueError, TypeError, ImportError) as error:
            raise MisconfigurationException(str(error)) from error
        if self.launch is None:  # or the user's launcher has started the processes already
            processes.check_number(trainer)
        # until a run installs its own; Lightning's handler ends a command some time later, with exit status 0
        set_sigterm_handler(trainer, signals.end_at_once)
        if self.subcommand == "fit":
            gradient_scaler.install(trainer, self.config_init["fit"].scaler)
            if gradient_scaler.scaler_of(trainer) is None:
                # without a scaler it has nothing to monitor, but its hook would cost time in each step
                _remove_callbacks(trainer, LossScaleMonitor)
        if self.start is None:
            # or under SLURM Lightning would resume from any hpc_ckpt_N.ckpt in the folder, even of another job
            ignore_slurm_checkpoints(trainer)
        return trainer

    # the run

    def run_subcommand(self, subcommand: str) -> None:
        try:
            super().run_subcommand(subcommand)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            own = isinstance(error, RequestError | RunError | torch.OutOfMemoryError)
            if own or not is_restoring(self.trainer) or self.start is None:
                raise
            raise RequestError(
                f"{self.start.path} is damaged, or of another version, and can't be loaded: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    def written_report(self) -> Path | None:
        """Return the folder of the report that this process has written; None if it has written none."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((each.written for each in callbacks if isinstance(each, Report)), None)

    def result(self) -> "Result":
        """Return the result of the command, after it has run."""
        from mnist_amp.reporting.result import Result  # only a program needs it

        if (report := self.written_report()) is not None:
            return Result.read(report)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        folder = next((each.path for each in callbacks if isinstance(each, RunFolder)), None)
        checkpoint = next((each for each in callbacks if isinstance(each, RunCheckpoint)), None)
        if checkpoint is not None and checkpoint.history:
            return Result(folder, _metrics_of_best(checkpoint))
        return Result(folder, {name: value.item() for name, value in self.trainer.callback_metrics.items()})


def run(args: list[str]) -> MnistAmpCLI:
    """Run the command line `args`, which `arrange` has put in order; return its object.

    Raises:
        RequestError: the request can't be carried out.
        Stopped: a signal ended the run.
    """
    prepare()
    return MnistAmpCLI(args)


def prepare() -> None:
    """Set up the process for a command."""
    silence()
    processes.install_observer()
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # for networks and data sets of the user; last, so that it hides no package
    if not torch.cuda.is_available():
        # Lightning sets it, and then torch looks for a driver at every optimizer step, for a tenth of a millisecond
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def check_network(args: list[str]) -> None:
    """Check that the network that arguments name exists, before they are parsed.

    Raises:
        RequestError: it does not, or a LightningModule is named. The message is more precise than that of the parser.
    """
    if own_module.is_named(args):
        raise RequestError(
            "model and data can't be classes of your own in this command: only compare and profile take them. Train a "
            "network of your own with --network, on your own images with --data.folder or --data.dataset."
        )
    if (network := class_given(args, "network")) not in (None, "null"):
        resolve(str(network))


def _remove_callbacks(trainer: Trainer, kind: type[Callback]) -> None:
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, kind)]  # type: ignore[attr-defined]


def _metrics_of_best(checkpoint: RunCheckpoint) -> dict[str, Any]:
    """Return the metrics of the epoch of the best checkpoint, or of the last epoch if no images were held out."""
    if (score := checkpoint.best_model_score) is None:
        return checkpoint.history[-1].to_dict()
    best = [row for row in checkpoint.history if row.val_accuracy == score.item()]
    return best[0].to_dict() if best else {"val_accuracy": score.item()}  # it was validated within an epoch
