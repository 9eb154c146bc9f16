"""The command `mnist-amp`, and `python -m mnist_amp`, which is the same.

What can be answered without torch and Lightning is answered before they are imported, which takes seconds.
"""

import importlib
import os
import re
import sys

from mnist_amp import __version__, helptexts
from mnist_amp.arguments import DEBUG, OWN, SUBCOMMANDS, arrange
from mnist_amp.complaints import explained, nearest
from mnist_amp.errors import RequestError, RunError
from mnist_amp.signals import Stopped


def main(args: list[str] | None = None) -> None:
    """Run the command line `args`, by default the process's own.

    Every mistake ends in one message on stderr: exit status 2 for a wrong request, 1 for a failed run.
    """
    try:
        _run(sys.argv[1:] if args is None else args)
    except Stopped as stopped:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            sys.stderr.write(f"mnist-amp: {stopped}\n")
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        sys.stderr.write("mnist-amp: stopped before there was anything to save.\n")
        sys.exit(130)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        message, status = explained(error)
        message = re.sub(r"(\S{60})\S{440,}", r"\1...", message)  # no name is so long, but a wrong value may be
        if int(os.environ.get("LOCAL_RANK", 0)) == 0 or not isinstance(error, RequestError | RunError):
            sys.stderr.write(f"mnist-amp: error: {message}\n")  # those two come to all processes alike
        sys.exit(status)


def _run(args: list[str]) -> None:
    if not any(arg in SUBCOMMANDS for arg in args):
        _answer_without_command(args)
        return
    arranged = arrange(args, os.environ)
    own = arranged[0] if arranged[0] in OWN else "cli"
    importlib.import_module(f"mnist_amp.{own}").run(arranged)


def _answer_without_command(args: list[str]) -> None:
    first = args[0] if args else ""
    if first in ("--help", "-h"):
        print(helptexts.OVERVIEW)
    elif first == "--version":
        print(f"mnist-amp {__version__}")
    else:
        choices = ", ".join(SUBCOMMANDS)
        what = f"there is no command {first}{nearest(first, SUBCOMMANDS)}" if first else "a command is missing"
        raise RequestError(f"{what}; it is one of {choices}. See mnist-amp --help.")


if __name__ == "__main__":
    main()
