"""The command line of the commands that Lightning does not have: a function, with the options of one that it has."""

import shlex
from collections.abc import Callable
from typing import ClassVar

from mnist_amp.cli import help_texts
from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare


class CommandCLI(MnistAmpCLI):
    """The command line of a function.

    Attributes:
        name: of the command.
        like: the command of Lightning's whose options it has.
        unused: options of that one which it does without.
        function: what runs it; its parameters after the first, this object, are the command's own options.
        command_line: as it was given, with what the environment set.
    """

    like: ClassVar[str]
    unused: ClassVar[set[str]] = {"weights_only"}
    function: ClassVar[Callable[..., None]]

    @classmethod
    def run(cls, args: list[str]) -> None:
        """Run the command line `args`, as `cli.run` does."""
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
        """Make nothing: it is the function's to do."""

    def run_subcommand(self, subcommand: str) -> None:
        type(self).function(self, **{key: self.config[subcommand][key] for key in self.own})
