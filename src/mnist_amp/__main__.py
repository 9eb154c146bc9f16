"""The command `mnist-amp`, which is also `python -m mnist_amp`.

--help, --version and mistakes in a command's name or its config files are answered before torch and Lightning are
imported, which takes seconds. Ctrl-C is handled before anything else is imported.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mnist_amp import errors, signals
from mnist_amp.cli import launchers
from mnist_amp.cli.launchers import Launch

DISTRIBUTED = ("fit", "validate", "test")  # commands that several processes run together
ONE_AT_A_TIME = threading.RLock()  # within a program, because a command changes the state of the process
GRACE = 3.0  # seconds in which the first process of a distributed run reports an error and ends the others


def main(args: list[str] | None = None) -> None:
    """Run a command line; every error ends it with one message on stderr.

    The exit status is 2 for a wrong request and 1 for a failed run.

    Args:
        args: the command and its options, of a program that keeps its own state; by default those of the process.
    """
    if args is None:
        signals.install_handlers()  # before anything else is imported
    try:
        _run(sys.argv[1:]) if args is None else call(args)
    except signals.Stopped as stopped:
        if errors.prints:
            sys.stderr.write(f"mnist-amp: {stopped}\n")
        sys.exit(128 + stopped.signum)
    except Exception as error:
        sys.exit(_report(error))
    finally:
        gc.unfreeze()  # or packages would report at the end that objects are left


def _report(error: Exception) -> int:
    """Print an error, once for all processes of a distributed run, and return the exit status."""
    from mnist_amp.cli.arguments import DEBUG
    from mnist_amp.cli.error_messages import describe_error
    from mnist_amp.errors import RequestError, RunError

    if os.environ.get(DEBUG):
        raise error
    message, status = describe_error(error)
    signals.end_child_processes()
    if not errors.prints:
        time.sleep(GRACE)  # mostly the first process ends this one meanwhile
    # a RequestError or RunError is raised in all processes alike
    if errors.prints or not isinstance(error, RequestError | RunError):
        sys.stderr.write(f"mnist-amp: error: {message}\n")
    return status


def call(args: list[str]) -> Any:
    """Run a command line within a program, and leave the process as it was.

    Returns:
        the `Result` of the command.

    Raises:
        Exception: of the command. `describe_error` has the message for it.
        Stopped: a signal ended a run.
    """
    from mnist_amp.cli import silenced

    with ONE_AT_A_TIME:
        levels = silenced.levels()
        silenced.silence_imports()
        try:
            with _garbage_ignored():
                from mnist_amp.cli import process_state
            with process_state.restored(levels):
                ran = _run(args)
                result = None if ran is None else ran.result()
                del ran  # or the garbage collector would leave the module and the data of the run
            return result
        finally:
            gc.unfreeze()


def _run(args: list[str]) -> Any:
    """Run a command line, and return its object, a `MnistAmpCLI`; None if there is nothing to run in this process."""
    import importlib

    from mnist_amp.cli.arguments import COMMANDS, arrange
    from mnist_amp.cli.silenced import silence_imports

    errors.prints = launchers.is_first(os.environ)
    if not any(arg in COMMANDS for arg in args):
        _answer_without_command(args)
        return None
    arranged = arrange(args, os.environ)
    launch = launchers.detect(os.environ)
    if launch is not None and not _join(launch, arranged[0]):
        return None
    silence_imports()
    with _garbage_ignored():
        command = importlib.import_module(COMMANDS[arranged[0]])
    return command.run(arranged)


@contextmanager
def _garbage_ignored() -> Iterator[None]:
    """Have the garbage collector leave alone what is made in this context.

    To import torch and Lightning makes several hundred thousand objects. The collector would search them again and
    again, also during training, and finds next to nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _join(launch: Launch, command: str) -> bool:
    """Prepare this process to run a command with the others of its run; return False if it has nothing to do."""
    if command in DISTRIBUTED:
        launchers.prepare(launch, os.environ)
        return True
    if launch.rank == 0:
        launchers.clear(os.environ)
        errors.warn(f"{command} runs in one process. The others of {launch}, have ended.")
    return launch.rank == 0


def _answer_without_command(args: list[str]) -> None:
    from mnist_amp import __version__
    from mnist_amp.cli import help_texts
    from mnist_amp.cli.arguments import SUBCOMMANDS
    from mnist_amp.errors import RequestError
    from mnist_amp.wording import nearest

    first = args[0] if args else ""
    if first in ("--help", "-h"):
        print(help_texts.OVERVIEW)
    elif first == "--version":
        print(f"mnist-amp {__version__}")
    else:
        choices = ", ".join(SUBCOMMANDS)
        problem = f"there is no command {first}{nearest(first, SUBCOMMANDS)}" if first else "no command is given"
        raise RequestError(f"{problem}; the commands are {choices}. See mnist-amp --help.")


if __name__ == "__main__":
    main()
