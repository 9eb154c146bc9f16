"""Fits that write nothing and are measured, and the command line of the commands that run them."""

import json
from typing import Any, ClassVar

import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from mnist_amp.cli import settings
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.lightning_cli import MnistAmpCLI
from mnist_amp.errors import RequestError
from mnist_amp.training.gradient_scaler import ScalerSettings

# a fit without the work beside training, which would be measured with it
BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 0,
}
# a fit that runs until a callback stops it; it validates as its settings say
ENDLESS: dict[str, Any] = {
    **{"max_epochs": -1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None},
    **{"fast_dev_run": False, "barebones": False, "profiler": None},
}


class MeasuringCLI(CommandCLI):
    """The command line of a command that runs measured fits: the options of `fit` except checkpoints, and its own."""

    like = "fit"
    unused: ClassVar = {"ckpt_path", "weights_only"}

    def add_command_arguments(self) -> None:
        self.subcommand_parsers["fit"].add_class_arguments(ScalerSettings, "scaler")
        super().add_command_arguments()

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)
        config = self.config["fit"]
        settings.check(config.as_dict())
        if config.trainer.devices not in (1, "1") or config.trainer.num_nodes != 1:
            raise RequestError(f"{self.name} measures one device; leave trainer.devices and trainer.num_nodes at 1.")
        if isinstance(config.seed_everything, bool):
            raise RequestError(f"seed_everything must be a number, because {self.name} repeats its fits.")

    def fit_settings(self) -> dict[str, Any]:
        """Return the settings of the fits as plain values, which a `--config` of `fit` takes."""
        text = self.subcommand_parsers["fit"].dump(self.config["fit"], skip_unset=False)
        return {key: value for key, value in yaml.safe_load(text).items() if key not in self.own}


class MeasuredFit(MnistAmpCLI):
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
        options = (
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in overrides.items()
        )
        super().__init__(["fit", f"--config={json.dumps(config)}", *options])

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return self.make_trainer(self.measuring, **(BARE | self.replaced))
