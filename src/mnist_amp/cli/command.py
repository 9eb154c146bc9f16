"""Commands that Lightning does not have: a function with options of its own and those of a Lightning command."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from mnist_amp.cli import help_texts
from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare

if TYPE_CHECKING:
    from mnist_amp.reporting.result import Result


class CommandCLI(MnistAmpCLI):
    """The command line of a function.

    Attributes:
        name: of the command.
        like: the Lightning command whose options it has.
        unused: options of that command which it does not have.
        function: run with this object; its other parameters are the command's own options. It returns the folder that
            it has written to, if any.
        folder: that folder, after the command has run.
        command_line: as it was given, with the settings of the environment.
    """

    like: ClassVar[str]
    unused: ClassVar[set[str]] = {"weights_only"}
    function: ClassVar[Callable[..., Path | None]]
    folder: Path | None = None

    @classmethod
    def run(cls, args: list[str]) -> Self:
        """Run the command line `args`, as `lightning_cli.run` does."""
        prepare()
        return cls(args)

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
        self.folder = type(self).function(self, **{key: self.config[subcommand][key] for key in self.own})

    def result(self) -> "Result":
        from mnist_amp.reporting.result import Result

        return Result(None, {}) if self.folder is None else Result.read(self.folder)
