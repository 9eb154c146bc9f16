"""The checkpoint that a command starts from: it is found and read, and the settings of its run are taken over."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mnist_amp.cli.arguments import class_given, peek
from mnist_amp.errors import RequestError, UsageError, warn
from mnist_amp.runs import checkpoint_files, resume
from mnist_amp.runs.config_text import to_yaml
from mnist_amp.runs.trust import trusted_settings, unsafe_arguments


@dataclass(frozen=True)
class StartingCheckpoint:
    """A checkpoint to start from.

    Attributes:
        path: the file.
        content: as torch loads it.
        settings: those of its run that the command takes over, unless they are overridden.
    """

    path: Path
    content: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def find(cls, command: str, subcommand: str, args: Sequence[str]) -> Self | None:
        """Find and read the checkpoint to start from.

        Args:
            command: named in messages.
            subcommand: `fit` starts without a checkpoint unless one is given; the others use the newest run's best.
            args: the arguments after the command.

        Returns:
            None for a fit that starts from scratch, and for a command that only prints.

        Raises:
            RequestError: there is no such checkpoint, it can't be used, or its settings are not safe to take over.
        """
        root = Path(str(peek(args, "trainer.default_root_dir") or "."))
        wanted = _wanted(command, subcommand, args, root)
        if wanted is None:
            return None
        path, content = _read(wanted, root, subcommand)
        return cls(path, content, _inherited_settings(path, content, subcommand, args))

    def as_argument(self) -> str:
        """Return the settings as an argument, weaker than the arguments that follow it."""
        return f"--config={to_yaml(self.settings)}"

    def changes(self, subcommand: str, config: Any) -> list[str]:
        """Check the parsed settings against the checkpoint, and list those that a fit overrides.

        Raises:
            RequestError: a setting can't be changed when a run is resumed.
        """
        resume.check_settings(self.path, self.content, subcommand, config)
        if subcommand != "fit":
            return []
        before = resume.saved_settings(self.content)  # those that are not trusted were given again, perhaps differently
        before["trainer"] |= self.settings["trainer"]
        changes = resume.reported_changes(before, config.as_dict())
        if inexact := resume.changes_of_order(changes):
            warn(f"{', '.join(inexact)}: this changes the batches, so the run is not continued exactly.")
        return changes


def _wanted(command: str, subcommand: str, args: Sequence[str], root: Path) -> str | None:
    """Return the checkpoint that is asked for: `best`, `last`, a file or a folder; None for no checkpoint."""
    given = peek(args, "ckpt_path")
    if given == "":
        raise UsageError("ckpt_path is empty; name a checkpoint, or leave it out.", "ckpt_path")
    only_prints = any(arg.startswith(("--help", "-h", "--print_config")) for arg in args)
    if given == "null":
        if subcommand == "fit" or only_prints:
            return None
        text = f"ckpt_path is null, but {command} needs a checkpoint; leave it out for the newest run's best."
        raise UsageError(text, "ckpt_path")
    if given is not None:
        return str(given)
    if only_prints:
        return None
    if subcommand == "fit":
        requeued = checkpoint_files.requeued_checkpoint(root)
        return None if requeued is None else str(requeued)
    return "best"


def _read(wanted: str, root: Path, subcommand: str) -> tuple[Path, dict[str, Any]]:
    """Read a checkpoint; if `last` can't be read, read the newest that can, with a warning."""
    path = checkpoint_files.resolve(wanted, root, folder_means="last" if subcommand == "fit" else "best")
    try:
        return path, checkpoint_files.read(path)
    except RequestError as error:
        other = checkpoint_files.newest_readable(root, beside=path)
        if other is None:
            raise
        if path.stem != "last" or str(path) == wanted or (wanted != "last" and other[0].parent != path.parent):
            raise RequestError(f"{error} The newest checkpoint that can be read is {other[0]}.") from error
        warn(f"{error} Resuming from the newest checkpoint that can be read, {other[0]}.")
        return other


def _inherited_settings(path: Path, content: dict[str, Any], subcommand: str, args: Sequence[str]) -> dict[str, Any]:
    try:
        settings = resume.inherited_settings(content, subcommand)
    except RequestError as error:
        raise RequestError(f"{path} is damaged: {error}") from error
    if peek(args, "trainer.precision") is not None and not peek(args, "trainer.plugins"):
        settings["trainer"]["plugins"] = None  # the given precision replaces the run's precision plugin
    trusted = trusted_settings(path, settings, is_given=lambda option: peek(args, option) is not None)
    network = settings.get("network")
    if network is not None and "network" not in trusted and class_given(args, "network") == network["class_path"]:
        # the user names it again, and so trusts it; safe parameters need not be repeated
        arguments = {key: value for key, value in network.items() if key != "class_path"}
        if unsafe_arguments(path, arguments) is None:
            trusted["network"] = network
    return trusted
