"""The command `mnist-amp`, and `python -m mnist_amp`, which is the same.

What can be answered without torch and Lightning is answered before they are imported, which takes seconds. Ctrl-C is
answered before anything is.
"""

import os
import re
import sys
import time

from mnist_amp import signals

GRACE = 3.0  # seconds that the first process of a distributed run has to say what went wrong in all of them


def main(args: list[str] | None = None) -> None:
    """Run the command line `args`, by default the process's own.

    Every mistake ends in one message on stderr: exit status 2 for a wrong request, 1 for a failed run.
    """
    if args is None:
        signals.install_handlers()  # before anything else is imported
    try:
        _run(sys.argv[1:] if args is None else args)
    except signals.Stopped as stopped:
        if _is_first():
            sys.stderr.write(f"mnist-amp: {stopped}\n")
        sys.exit(128 + stopped.signum)
    except Exception as error:
        sys.exit(_failed(error))


def _failed(error: Exception) -> int:
    """Say what went wrong, once for all processes of a distributed run; returns the exit status."""
    from mnist_amp.cli.arguments import DEBUG
    from mnist_amp.cli.error_messages import describe_error
    from mnist_amp.errors import RequestError, RunError

    if os.environ.get(DEBUG):
        raise error
    message, status = describe_error(error)
    message = re.sub(r"(\S{60})\S{440,}", r"\1...", message)  # no name is so long, but a wrong value may be
    signals.end_others()
    if not _is_first():
        time.sleep(GRACE)  # the first ends this one, unless it can't
    if _is_first() or not isinstance(error, RequestError | RunError):  # which come to all processes alike
        sys.stderr.write(f"mnist-amp: error: {message}\n")
    return status


def _is_first() -> bool:
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def _run(args: list[str]) -> None:
    import importlib

    from mnist_amp.cli.arguments import COMMANDS, arrange

    if not any(arg in COMMANDS for arg in args):
        _answer_without_command(args)
        return
    arranged = arrange(args, os.environ)
    importlib.import_module(COMMANDS[arranged[0]]).run(arranged)


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
        what = f"there is no command {first}{nearest(first, SUBCOMMANDS)}" if first else "a command is missing"
        raise RequestError(f"{what}; it is one of {choices}. See mnist-amp --help.")


if __name__ == "__main__":
    main()
