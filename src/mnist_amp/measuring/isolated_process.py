"""A function in a process of its own, so that its state cannot change what is measured next."""

import contextlib
import multiprocessing
import signal
import sysconfig
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningModule
from torch import nn

from mnist_amp.cli.arguments import DEBUG
from mnist_amp.cli.error_messages import describe_error, is_of_memory
from mnist_amp.cli.lightning_cli import prepare
from mnist_amp.errors import MemoryRunError, RequestError, RunError

PRELOADED = "mnist_amp.measuring.fit_measurements"  # imported once, for all processes

Result = TypeVar("Result")


def run_isolated(function: Callable[..., Result], *args: Any, warns: bool = False) -> Result:
    """Call a function in a new process, and return its result.

    Args:
        function: a function of a module; its result is pickled.
        args: its arguments, pickled too.
        warns: whether to print warnings; they would come with every measurement.

    Raises:
        RequestError: the function refuses the request.
        RunError: it failed, or its process died; a `MemoryRunError` if the memory was too small.

    Example::

        >>> run_isolated(math.sqrt, 9.0)
        3.0
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    receiver, sender = context.Pipe(duplex=False)
    given = (sender, function, args, warns, multiprocessing.get_start_method())
    process = context.Process(target=_send_result, args=given)  # no daemon, because a DataLoader may start workers
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        text = f"the process died with exit status {process.exitcode}; it may have run out of memory"
        # the system kills a process by SIGKILL if the memory is too small
        raise (MemoryRunError if process.exitcode == -signal.SIGKILL else RunError)(text) from None
    except BaseException:
        process.kill()
        raise
    process.join(5)
    process.kill()  # if the module has left a thread that does not end
    if isinstance(result, Exception):
        raise result
    answer: Result = result
    return answer


def _send_result(
    sender: Connection, function: Callable[..., Any], args: tuple[Any, ...], warns: bool, start_method: str
) -> None:
    multiprocessing.set_start_method(start_method, force=True)  # the workers of a DataLoader start as in any fit
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which kills this process
    prepare()
    if not warns:
        warnings.simplefilter("ignore")
    result: Any
    try:
        result = function(*args)
    except Exception as error:
        text, status = describe_error(error)
        failed = RequestError if status == 2 else MemoryRunError if is_of_memory(error) else RunError
        hint = f"\nSet {DEBUG}"  # a traceback of this process would not be seen
        result = failed(f"{text.partition(hint)[0]}{_described_layer(error)}{_described_place(error)}")
    with contextlib.suppress(BrokenPipeError):  # the parent has ended
        sender.send(result)


def _described_layer(error: Exception) -> str:
    """Name the layer of a module whose forward pass an error ended; empty if there is none.

    A layer is found by the calls that the error has passed: the outermost is of the LightningModule.
    """
    calls = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [owner for owner in calls if isinstance(owner, nn.Module)]
    root = next((module for module in modules if isinstance(module, LightningModule)), None)
    names = {} if root is None else {module: name for name, module in root.named_modules()}
    layer = next((module for module in reversed(modules) if names.get(module)), None)
    return "" if layer is None else f" (in layer {names[layer]}, {type(layer).__name__})"


def _described_place(error: Exception) -> str:
    """Name the newest line of the user's code that an error has passed; empty if there is none."""
    installed = [Path(name).resolve() for name in (*sysconfig.get_paths().values(), str(Path(__file__).parents[1]))]
    if isinstance(error, RequestError | RunError):
        return ""
    places = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(path, line) for path, line in places if path.is_file() and not _is_within(path, installed)]
    return f" ({own[-1][0].name}, line {own[-1][1]})" if own else ""


def _is_within(path: Path, folders: list[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)
