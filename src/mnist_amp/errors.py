"""What the command line answers with one message, and with which exit status."""

import os
import sys


class RequestError(ValueError):
    """The request can't be carried out (exit status 2); the message says what is wrong and what to do."""


class UsageError(RequestError):
    """An option or its value is wrong.

    Args:
        message: without where the option was given.
        key: the option's name, such as `data.batch_size`.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class RunError(RuntimeError):
    """A run failed (exit status 1); the message says why, what is left of it and what to do."""


def warn(text: str) -> None:
    """Say what is no error, but should be known; once, however many processes there are."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        sys.stderr.write(f"mnist-amp: warning: {text}\n")
