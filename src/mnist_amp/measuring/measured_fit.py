"""Fits that write nothing and are measured, and the command line of the commands that run them."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers.logger import DummyLogger

from mnist_amp.cli import own_module, settings
from mnist_amp.cli.arguments import written
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.lightning_cli import MnistAmpCLI, check_network
from mnist_amp.errors import RequestError
from mnist_amp.lightning_internals import run_on
from mnist_amp.runs.config_text import without_objects
from mnist_amp.runs.trust import OF_PROGRAM
from mnist_amp.training.gradient_scaler import ScalerSettings

# a fit without the work beside training, which would be measured with it
BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 0,
}
# a fit that runs until a callback stops it, which calls `make_endless`; it validates as its settings say
ENDLESS: dict[str, Any] = {
    **{"max_time": None, "min_epochs": None, "min_steps": None},
    **{"fast_dev_run": False, "barebones": False, "profiler": None},
}
ENDED = "the fit ended before it was measured; leave out the callback that ends it"


def make_endless(trainer: Trainer) -> None:
    """Let a fit that has begun run until a callback ends it."""
    run_on(trainer)
    relax_schedules(trainer)


def relax_schedules(trainer: Trainer) -> None:
    """Let the schedules of a fit, which were made for its length, stay at their last rate after its end.

    A schedule that needs a metric is left out, because there may be none so soon.
    """
    if trainer.lightning_module.automatic_optimization:
        kept = [config for config in trainer.lr_scheduler_configs if not config.reduce_on_plateau]
        trainer.strategy.lr_scheduler_configs = kept
    for config in trainer.lr_scheduler_configs:
        config.scheduler.step = _until_its_end(config.scheduler.step)  # type: ignore[method-assign]


def _until_its_end(step: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(ValueError):  # OneCycleLR's, beyond its total_steps
            step(*args, **kwargs)

    return stepped


class AnyModuleCLI(MnistAmpCLI):
    """A command line that takes a LightningModule and a LightningDataModule of the user's, by name, as well.

    Attributes:
        is_foreign: whether it has got these.
    """

    is_foreign = False

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self.is_foreign:
            own_module.add_arguments(parser)
            self.auto_configure_optimizers = True  # with the options optimizer and lr_scheduler, which are optional
        else:
            super().add_core_arguments_to_parser(parser)

    def check_arguments(self, args: list[str]) -> None:
        """Check the classes that arguments name."""
        (own_module.check if self.is_foreign else check_network)(args)

    def check_settings(self, config: dict[str, Any]) -> None:
        (settings.check_trainer if self.is_foreign else settings.check)(config)


class MeasuringCLI(AnyModuleCLI, CommandCLI):
    """The command line of a command that runs measured fits: the options of `fit` except checkpoints, and its own."""

    like = "fit"
    unused: ClassVar = {"ckpt_path", "weights_only"}

    def __init__(self, args: list[str]) -> None:
        self.is_foreign = own_module.is_named(args)
        super().__init__(args)

    def add_command_arguments(self) -> None:
        self.subcommand_parsers["fit"].add_class_arguments(ScalerSettings, "scaler")
        super().add_command_arguments()

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = self._checked(parser, args)

    def _checked(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        """Return the parsed arguments, after checks of what can't be measured."""
        for name, value in written(args[1:]):
            if str(value).startswith(OF_PROGRAM):
                raise RequestError(
                    f"{name} is {value}, which is defined in this notebook or program, but {self.name} measures in "
                    "processes of its own. Write it to a file such as my_module.py, and give "
                    f"my_module.{value.removeprefix(OF_PROGRAM)}."
                )
        self.check_arguments(args[1:])
        parsed: Namespace = parser.parse_args(args)
        config = parsed["fit"]
        self.check_settings(config.as_dict())
        if config.trainer.devices not in (1, "1") or config.trainer.num_nodes != 1:
            raise RequestError(f"{self.name} measures one device; leave trainer.devices and trainer.num_nodes at 1.")
        if isinstance(config.seed_everything, bool):
            raise RequestError(f"seed_everything must be a number, because {self.name} repeats its fits.")
        return parsed

    def fit_settings(self) -> dict[str, Any]:
        """Return the settings of the fits as plain values."""
        return self.plain(self.config["fit"])

    def parse_with(self, options: Mapping[str, Any]) -> Namespace:
        """Return the settings of the fits with other options, which are parsed and checked like the command line.

        Args:
            options: options of `fit` by name, with plain values.

        Raises:
            RequestError: there is no such option, or it does not take the value.
        """
        args = ["fit", f"--config={json.dumps(self.fit_settings())}", *arguments(options)]
        parsed: Namespace = self._checked(self.parser, args)["fit"]
        return parsed

    def plain(self, config: Namespace) -> dict[str, Any]:
        """Return settings as plain values, which a `--config` of `fit` takes."""
        text = without_objects(self.subcommand_parsers["fit"].dump(config, skip_unset=False))
        return {key: value for key, value in yaml.safe_load(text).items() if key not in self.own}


def uncompiled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option of a fit whose steps are looked into, which is impossible in a compiled step.

    Args:
        config: settings of the fit; that of a module of the user's has no such option.
    """
    return {"compile": False} if "compile" in config else {}


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return options with plain values as arguments.

    >>> arguments({"optimizer": "SGD", "optimizer.lr": 0.1, "trainer.callbacks": None})
    ['--optimizer=SGD', '--optimizer.lr=0.1', '--trainer.callbacks=null']
    """
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]


class MeasuredFit(AnyModuleCLI):
    """A fit that writes nothing. It runs when the object is made.

    Args:
        config: settings, as `MeasuringCLI.fit_settings` returns them.
        overrides: options of `fit` by name, which override `config`.
        callbacks: callbacks that measure the fit.
        trainer: arguments of the Trainer, which override all other settings.

    Attributes:
        trainer: the Trainer.
        model: the LightningModule.
    """

    def __init__(
        self, config: dict[str, Any], overrides: dict[str, Any], callbacks: list[Callback], **trainer: Any
    ) -> None:
        self.measuring, self.replaced = callbacks, trainer
        args = ["fit", f"--config={json.dumps(config)}", *arguments(overrides)]
        self.is_foreign = own_module.is_named(args)
        super().__init__(args)

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self.is_foreign:
            own_module.check_optimizer(self.model, self.config["fit"].as_dict())
        return self.make_bare_trainer(self.measuring, self.replaced)

    def make_bare_trainer(self, callbacks: list[Callback], replaced: dict[str, Any]) -> Trainer:
        """Make a Trainer without the work beside training; `replaced` are its arguments that override all others."""
        # modules of other projects may use their logger
        logger = {"logger": DummyLogger()} if self.is_foreign else {}
        return self.make_trainer(callbacks, **(BARE | logger | replaced))
