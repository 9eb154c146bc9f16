"""Fits that write nothing and are measured, and the command lines of the commands that run them."""

import shlex
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType

from mnist_amp import helptexts, settings
from mnist_amp.cli import MnistAmpCLI
from mnist_amp.errors import RequestError
from mnist_amp.scaler import ScalerSettings

# what a fit does beside training, which would be measured with it
BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 0,
}


class CommandCLI(MnistAmpCLI):
    """The command line of a command that runs fits: the options of `fit`, but for checkpoints, and its own.

    Attributes:
        function: what runs the command; its parameters, but for `cli`, are the command's own options, and the
            docstring has their descriptions.
        config: what was parsed, of the subcommand `fit`.
        command: the command line, with what the environment set.
    """

    name: ClassVar[str]
    function: ClassVar[Callable[..., None]]

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"}
        return {"fit": skipped}

    def add_command_arguments(self) -> None:
        parser = self._subcommand_parsers["fit"]
        parser.add_class_arguments(ScalerSettings, "scaler")
        self.own = parser.add_function_arguments(type(self).function, skip={"cli"})
        helptexts.describe({self.name: parser})

    def _parse(self, parser: Any, args: list[str]) -> None:
        self.command = shlex.join(["mnist-amp", *args])
        self.config = parser.parse_args(["fit", *args[1:]])
        config = self.config["fit"]
        settings.check(config.as_dict())
        if config.trainer.devices not in (1, "1", "auto") or config.trainer.num_nodes != 1:
            raise RequestError(f"{self.name} measures one device; leave trainer.devices and trainer.num_nodes at 1.")
        if config.seed_everything in (True, False):
            raise RequestError(f"{self.name} needs a number as seed_everything, to be able to repeat what it does.")

    def instantiate_classes(self) -> None:
        """Make nothing yet: each measurement makes its own."""

    def _run_subcommand(self, subcommand: str) -> None:
        type(self).function(self, **{key: self.config["fit"][key] for key in self.own})

    def fit_settings(self) -> dict[str, Any]:
        """Return the settings of the fits, as plain values that a `--config` of `fit` takes."""
        import yaml

        config = self.config["fit"].clone()
        parser = self._subcommand_parsers["fit"]
        plain: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_unset=False))
        return {key: value for key, value in plain.items() if key not in self.own}


class MeasuredFit(MnistAmpCLI):
    """A fit that writes nothing, with callbacks that measure it; it runs when it is made.

    Args:
        args: of `fit`.
        callbacks: beside those that the settings name.
        trainer: settings of the Trainer that go before the others.
    """

    def __init__(self, args: ArgsType, callbacks: list[Callback], **trainer: Any) -> None:
        self.measuring, self.replaced = callbacks, trainer
        super().__init__(["fit", *(args if isinstance(args, list) else [])])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return self.make_trainer(self.measuring, **(BARE | self.replaced))


def synchronized_clock(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
