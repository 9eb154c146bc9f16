"""The LightningCLI: fit, validate, test and predict."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, LRSchedulerTypeTuple
from torch.optim import Optimizer

from mnist_amp import __version__, helptexts, runs
from mnist_amp.arguments import DEBUG, arrange
from mnist_amp.callbacks import (
    Banner,
    EvaluationReport,
    FitSummary,
    PredictionWriter,
    ProgressBar,
    RunCheckpoint,
    RunFolder,
)
from mnist_amp.data import MNISTDataModule
from mnist_amp.errors import RequestError
from mnist_amp.module import ADAM, LitSimpleNN
from mnist_amp.report import counted

# the guide's, on one device however many there are; the banner has what the model summary says
TRAINER_DEFAULTS = {"max_epochs": 5, "precision": "16-mixed", "devices": 1, "enable_model_summary": False}

# what the banner says already, or what does not apply to data in memory
SILENCED = (
    r".*AMP with fp16 is not supported on CPU.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*Experiment logs directory .* exists and is not empty.*",  # it is new, and holds config.yaml only
    r".*callbacks used to create the checkpoint need to be provided.*",  # what only fit needs
    r".*Total length of `list` across ranks is zero.*",  # no validation images, as asked
    r".*It is recommended to use `self.log\(.*sync_dist=True.*",  # what is logged is all processes' already
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning's own use of torch
)
QUIETED = (
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.utilities.rank_zero",
)


class Parser(LightningArgumentParser):
    """Says a mistake in a line, where jsonargparse prints all options before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        sys.stderr.write(f"mnist-amp: error: {message}\nSee {parser.prog.replace(' [options]', '')} --help.\n")
        sys.exit(2)


class MnistAmpCLI(LightningCLI):
    """Lightning's command line over LitSimpleNN and MNISTDataModule.

    A command that starts from a checkpoint takes over the settings of its run: `fit` all of them, the others those that
    say what the model and its data are. What is given anew, by file, environment or command line, is stronger.
    """

    def __init__(self, args: ArgsType = None) -> None:
        self.checkpoint: dict[str, Any] | None = None
        super().__init__(
            LitSimpleNN,
            MNISTDataModule,
            save_config_callback=None,  # RunFolder does it
            seed_everything_default=42,
            parser_kwargs={"prog": "mnist-amp", "version": __version__, "description": helptexts.DESCRIPTION},
            parser_class=Parser,
            auto_configure_optimizers=False,  # the module makes them, of what it is given as plain values
            load_from_checkpoint_support=False,  # the hyperparameters are plain values already
            args=args,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="Seed of the weights, of the order of the images and of the split; true draws one, false sets none.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(LitSimpleNN, "model")
        parser.add_lightning_class_args(MNISTDataModule, "data")
        parser.add_optimizer_args((Optimizer,), "optimizer")
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple, "lr_scheduler")
        for key in ("optimizer", "lr_scheduler"):
            parser.link_arguments(key, f"model.{key}", compute_fn=as_dict)
        # the Trainer's many options come last, so that --help begins with what is this project's own
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({"optimizer": ADAM} | {f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        helptexts.describe(self.parser, self._subcommand_parsers)
        for name in ("validate", "test"):
            self._subcommand_parsers[name].set_defaults({"verbose": False})  # EvaluationReport prints the figures

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self.config = parser.parse_args(args)
        subcommand = self.config.subcommand
        given = self.config[subcommand]
        root = Path(given.trainer.default_root_dir or ".")
        wanted = given.ckpt_path or (None if subcommand == "fit" else "best")
        if wanted is not None:
            path = runs.resolve(wanted, root, folder_means="last" if subcommand == "fit" else "best")
            self.checkpoint = runs.read(path)
            place = args.index(subcommand) + 1
            inherited = f"--config={json.dumps(_inherited(self.checkpoint, subcommand))}"
            self.config = parser.parse_args([*args[:place], inherited, *args[place:]])
            self._settle(path, given)

    def _parse_ckpt_path(self) -> None:
        """Do not let a checkpoint's hyperparameters override the command line, as Lightning does."""

    def _settle(self, path: Path, given: Any) -> None:
        """Check what was given anew against the checkpoint."""
        assert self.checkpoint is not None
        config = self.config[self.config.subcommand]
        config.ckpt_path, config.weights_only = str(path), True
        if config.trainer.precision is not None and not given.trainer.plugins:
            config.trainer.plugins = None  # a precision given anew takes the place of the run's plugin
        trained = self.checkpoint["hyper_parameters"]["hidden_dim"]
        if config.model.hidden_dim != trained:
            raise RequestError(
                f"model.hidden_dim is {config.model.hidden_dim}, but {path} holds a network of hidden_dim {trained}. "
                "Leave model.hidden_dim out, or start without this checkpoint."
            )
        optimizer = self.checkpoint["hyper_parameters"]["optimizer"]["class_path"]
        if self.config.subcommand == "fit" and config.optimizer.class_path != optimizer:
            raise RequestError(
                f"optimizer is {config.optimizer.class_path}, but {path} holds the state of {optimizer}, which another "
                "optimizer can't go on from. Leave optimizer out, or start without this checkpoint."
            )
        epochs, wanted = runs.position(self.checkpoint)["epochs"], config.trainer.max_epochs
        if self.config.subcommand == "fit" and wanted is not None and 0 <= wanted <= epochs:
            raise RequestError(
                f"{path} has {counted(epochs, 'epoch')} behind it and trainer.max_epochs is {wanted}: nothing is "
                f"left to train. Ask for more, as in --trainer.max_epochs {2 * epochs}."
            )
        if self.config.subcommand == "validate" and config.data.val_size == 0:
            raise RequestError(
                f"{path} was trained on all images, so none are left to validate on. Use `mnist-amp test`."
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand].trainer
        logger = False if config.logger in (None, True) else config.logger  # RunFolder adds the default ones
        given = config.callbacks or []
        given = given if isinstance(given, list) else [given]
        return super().instantiate_trainer(callbacks=[*self._callbacks(config), *given], logger=logger, **kwargs)

    def _callbacks(self, trainer: Any) -> list[Callback]:
        config = self.config[self.subcommand]
        root = Path(trainer.default_root_dir or ".")
        seed = config.seed_everything
        seed = None if seed is False else int(seed)
        path = Path(config.ckpt_path) if config.ckpt_path else None
        described = None
        if self.checkpoint:
            position = runs.position(self.checkpoint)
            described = f"{path} ({counted(position['epochs'], 'epoch')} done, step {position['step']:,})"
        precision = None if trainer.plugins else trainer.precision
        bar: list[Callback] = [ProgressBar()] if trainer.enable_progress_bar is not False else []
        if self.subcommand == "fit" and not trainer.fast_dev_run:
            run = RunFolder(root, self._resolved_config(), default_loggers=trainer.logger in (None, True))
            callbacks = [run, Banner(precision, seed, described, run), *bar]
            if trainer.enable_checkpointing is not False:
                checkpoint = RunCheckpoint(run)
                callbacks += [checkpoint, FitSummary(checkpoint, self._next_steps(trainer))]
            return callbacks
        callbacks = [Banner(precision, seed, described), *bar]
        if path is not None and self.checkpoint is not None and not trainer.fast_dev_run:
            folder = runs.folder_of(path) / f"{self.subcommand}_{path.stem}"
            facts = {"command": self.subcommand, "checkpoint": str(path), **runs.position(self.checkpoint)}
            callbacks.append(
                PredictionWriter(folder) if self.subcommand == "predict" else EvaluationReport(folder, facts)
            )
        return callbacks

    def _resolved_config(self) -> str:
        parser = self._parser(self.subcommand)
        return str(parser.dump(self.config[self.subcommand], skip_unset=False))

    def _next_steps(self, trainer: Any) -> list[str]:
        root = f" --trainer.default_root_dir {trainer.default_root_dir}" if trainer.default_root_dir else ""
        more = 2 * (trainer.max_epochs or 5)
        return [
            f"mnist-amp test{root}",
            f"mnist-amp fit{root} --ckpt_path last --trainer.max_epochs {more}",
            f"tensorboard --logdir {runs.logs(Path(trainer.default_root_dir or '.'))}",
        ]


def main(args: list[str] | None = None) -> None:
    """Run the command line `args`, by default the process's own.

    Every mistake ends in one message on stderr: exit status 2 for a wrong request, 1 for a failed run.
    """
    for pattern in SILENCED:
        warnings.filterwarnings("ignore", pattern)
    for name in QUIETED:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        MnistAmpCLI(arrange(sys.argv[1:] if args is None else args, os.environ))
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        wrong = isinstance(error, RequestError | MisconfigurationException)
        text = (
            _explain(error) if wrong else f"{type(error).__name__}: {error}\nSet {DEBUG}=1 to see where it came from."
        )
        sys.stderr.write(f"mnist-amp: error: {text}\n")
        sys.exit(2 if wrong else 1)


def _explain(error: Exception) -> str:
    """Put Lightning's own words where they would lead a user astray into clearer ones."""
    if "CUDAAccelerator" in str(error):
        return "trainer.accelerator is cuda, but no CUDA device can be used here. Leave it at auto, or ask for cpu."
    return str(error)


def as_dict(init: Namespace | None) -> dict[str, Any] | None:
    return None if init is None else init.as_dict()


def _inherited(checkpoint: dict[str, Any], subcommand: str) -> dict[str, Any]:
    """Return the settings of a checkpoint's run that a command takes over."""
    saved = dict(checkpoint["hyper_parameters"])
    config: dict[str, Any] = {key: saved.pop(key) for key in ("optimizer", "lr_scheduler") if saved.get(key)}
    config["model"] = {key: value for key, value in saved.items() if key not in config}
    config.update(yaml.safe_load(checkpoint.get(runs.CONFIG_KEY, "{}")))
    config.pop("ckpt_path", None)
    if subcommand == "fit":
        return config
    trainer = {key: value for key, value in config.get("trainer", {}).items() if key in ("precision", "plugins")}
    return {"trainer": trainer} | {key: config[key] for key in ("model", "data", "seed_everything") if key in config}
