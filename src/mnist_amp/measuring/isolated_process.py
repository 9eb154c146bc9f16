"""A function in a process of its own, so that its state cannot change what is measured next."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mnist_amp.cli.error_messages import describe_error
from mnist_amp.cli.lightning_cli import prepare
from mnist_amp.errors import RequestError, RunError

PRELOADED = "mnist_amp.measuring.fit_measurements"  # imported once, for all processes

Result = TypeVar("Result")


def run_isolated(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function in a new process, and return its result.

    Args:
        function: a function of a module; its result is pickled.
        args: its arguments, pickled too.

    Raises:
        RequestError: the function refuses the request.
        RunError: it failed, or its process died.

    Example::

        >>> run_isolated(math.sqrt, 9.0)
        3.0
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise RunError(f"the process died with exit status {process.exitcode}; it may have run out of memory") from None
    except BaseException:
        process.kill()
        raise
    process.join()
    if isinstance(result, Exception):
        raise result
    answer: Result = result
    return answer


def _send_result(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which kills this process
    prepare()
    result: Any
    try:
        result = function(*args)
    except Exception as error:
        text, status = describe_error(error)
        result = RequestError(text) if status == 2 else RunError(text)
    with contextlib.suppress(BrokenPipeError):  # the parent has ended
        sender.send(result)
