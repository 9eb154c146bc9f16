"""Errors that end a command with one message, and their exit status."""

import sys

# whether this process prints warnings and errors, for all processes of its run
prints = True


class RequestError(ValueError):
    """The request is wrong (exit status 2); the message says what is wrong and what to do."""


class UsageError(RequestError):
    """An option or its value is wrong.

    Args:
        message: without the file or variable that sets the option, which is added later.
        key: the option's name, such as `data.batch_size`.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class RunError(RuntimeError):
    """A run failed (exit status 1); the message says why, what is saved and what to do."""


class MemoryRunError(RunError):
    """A run failed because the memory of the device or the machine is too small."""


def warn(text: str) -> None:
    """Print a warning, in the first process of a distributed run only."""
    if prints:
        sys.stderr.write(f"mnist-amp: warning: {text}\n")
