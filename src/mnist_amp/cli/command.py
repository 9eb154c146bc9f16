"""Commands that Lightning does not have: a function with options of its own and those of a Lightning command."""

import shlex
from collections.abc import Callable
from typing import ClassVar

from mnist_amp.cli import help_texts
from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare


class CommandCLI(MnistAmpCLI):
    """The command line of a function.

    Attributes:
        name: of the command.
        like: the Lightning command whose options it has.
        unused: options of that command which it does not have.
        function: run with this object; its other parameters are the command's own options.
        command_line: as it was given, with the settings of the environment.
    """

    like: ClassVar[str]
    unused: ClassVar[set[str]] = {"weights_only"}
    function: ClassVar[Callable[..., None]]

    @classmethod
    def run(cls, args: list[str]) -> None:
        """Run the command line `args`, as `lightning_cli.run` does."""
        prepare()
        cls(args)

    def __init__(self, args: list[str]) -> None:
        self.command_line = shlex.join(["mnist-amp", *args])
        super().__init__([self.like, *args[1:]])

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return {command: skipped | self.unused for command, skipped in super().subcommands().items()}

    def add_command_arguments(self) -> None:
        parser = self.subcommand_parsers[self.like]
        self.own = parser.add_function_arguments(type(self).function, skip={"cli"})
        help_texts.show_first(parser)
        help_texts.describe({self.name: parser})

    def instantiate_classes(self) -> None:
        """Make nothing: the function makes what it needs."""

    def run_subcommand(self, subcommand: str) -> None:
        type(self).function(self, **{key: self.config[subcommand][key] for key in self.own})
