"""The commands as functions, for notebooks and programs: the same options, results as objects, errors as exceptions.

Example::

    from mnist_amp.commands import fit, test

    run = fit("--network", "CNN", "--trainer.max_epochs", 2)
    print(run.folder, run.metrics["val_accuracy"])
    print(test().metrics["accuracy"])

The arguments are those of the command line, in its order; `fit("--help")` lists them. Instead of text, a value may be a
number, True, None, a path, a timedelta, a class or a function, and a list or a dictionary of these.

- A function returns a `Result`: the folder with the files of the command, and its metrics.
- A wrong request raises `mnist_amp.errors.RequestError` and a failed run `mnist_amp.errors.RunError`, with the message
  that the command prints.
- Ctrl-C, or an interrupted cell, raises KeyboardInterrupt. A fit saves a checkpoint before; the message has its path.
- Settings of the process, such as the handlers of signals, environment variables, the random numbers and the
  precision of matrix products, are afterwards as they were before.
"""

import math
import os
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from types import BuiltinFunctionType, FunctionType
from typing import Any

import yaml

from mnist_amp import __main__, errors, signals
from mnist_amp.cli.arguments import DEBUG
from mnist_amp.cli.error_messages import describe_error
from mnist_amp.errors import RequestError, RunError
from mnist_amp.reporting.result import Result


def fit(*args: Any) -> Result:
    """Train a network, as `mnist-amp fit` does.

    Examples:
        >>> run = fit("--trainer.max_epochs", 2, "--network.hidden_dim", 256)  # doctest: +SKIP
        >>> run.metrics["val_accuracy"]  # doctest: +SKIP
        0.9612
        >>> fit("--ckpt_path", "last", "--trainer.max_epochs", 4)  # doctest: +SKIP
        Result(folder=PosixPath('lightning_logs/version_1'))
    """
    return _call("fit", args)


def validate(*args: Any) -> Result:
    """Score a checkpoint on the validation images, as `mnist-amp validate` does."""
    return _call("validate", args)


def test(*args: Any) -> Result:
    """Score a checkpoint on the test images, as `mnist-amp test` does: `test().metrics["accuracy"]`."""
    return _call("test", args)


test.__test__ = False  # type: ignore[attr-defined]  # or pytest would collect it where a file of tests imports it


def predict(*args: Any) -> Result:
    """Predict the classes of the test images, or of image files, as `mnist-amp predict` does.

    Examples:
        >>> read = predict("--images", "seven.png", "three.png")  # doctest: +SKIP
        >>> [(row["file"], row["guess"], row["probability"]) for row in read.metrics["predictions"]]  # doctest: +SKIP
        [('seven.png', '7', 0.998), ('three.png', '3', 0.994)]
    """
    return _call("predict", args)


def compare(*args: Any) -> Result:
    """Compare precisions, as `mnist-amp compare` does: `compare("--precisions", ["32-true", "bf16-mixed"])`."""
    return _call("compare", args)


def profile(*args: Any) -> Result:
    """Measure the parts of a training step, as `mnist-amp profile` does."""
    return _call("profile", args)


def export(*args: Any) -> Result:
    """Export a checkpoint to files for other programs, as `mnist-amp export` does: `export("--formats", ["onnx"])`."""
    return _call("export", args)


def _call(command: str, args: tuple[Any, ...]) -> Result:
    try:
        result: Result = __main__.call([command, *map(_text, args)])
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning exits after one
            raise KeyboardInterrupt("stopped at once") from None
        if ended.code:
            raise
        return Result(None, {})  # --help and --print_config
    except signals.Stopped as stopped:
        _pass_on(stopped)
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        signals.end_child_processes()
        if isinstance(error, RequestError | RunError):
            raise error.with_traceback(None) from None  # the message tells all; a long traceback would hide it
        message, status = describe_error(error)
        if status == 2:
            raise RequestError(message) from None
        raise RunError(message) from error
    return result


def _text(value: Any) -> str:
    """Return an argument as it is written on a command line.

    >>> list(map(_text, ["--trainer.max_epochs", 2, None, True, ["a", 1e-9], math.inf, timedelta(minutes=90)]))
    ['--trainer.max_epochs', '2', 'null', 'true', '[a, 1.0e-09]', '.inf', '00:01:30:00']
    """
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    text = yaml.safe_dump(plain, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()  # the dots are the end of a single value


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: a class as its name, for example, and a number of numpy or torch as one of Python.

    Raises:
        RequestError: a command line has no text for it.
    """
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)  # YAML has no subclasses, such as an Enum's
        case int():
            return int(value)
        case float():
            return float(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case Mapping():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case os.PathLike():
            return os.fspath(value)
        case timedelta():
            return _time(value)
        case type() | FunctionType() | BuiltinFunctionType():
            return _name(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise RequestError(
        f"an argument can't be of type {type(value).__name__}. Give text, a number, True, False, None, a path, a "
        "timedelta, a class or a function, or a list or a dictionary of these. The parameters of a class are options "
        "of their own, such as --network.width."
    )


def _time(time: timedelta) -> str:
    """Return a time as Lightning's options take it: days:hours:minutes:seconds."""
    if time.microseconds:
        raise RequestError(f"the time {time} has a fraction of a second; give whole seconds.")
    minutes, seconds = divmod(time.seconds, 60)
    return f"{time.days:02}:{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _name(named: Any) -> str:
    """Return the name of a class or a function with its public module: torch.optim.SGD, for example."""
    own = named.__name__ if isinstance(named, BuiltinFunctionType) else named.__qualname__  # torch.relu has another one
    if "<" in own:  # <locals> or <lambda>
        raise RequestError(
            f"{own} can't be imported by its name. Define it at the top level of a module or in a cell, "
            "and not within a function."
        )
    parts = named.__module__.split(".")
    modules = (".".join(parts[:length]) for length in range(1, len(parts)))
    public = next((name for name in modules if getattr(sys.modules.get(name), own, None) is named), named.__module__)
    return f"{public}.{own}"


def _pass_on(stopped: signals.Stopped) -> None:
    """Let the program handle the signal that stopped a command, now that its handlers are restored."""
    if stopped.signum == signal.SIGINT:
        raise KeyboardInterrupt(str(stopped)) from None
    if errors.prints:
        sys.stderr.write(f"mnist-amp: {stopped}\n")
    signal.raise_signal(stopped.signum)  # which ends a program without a handler
