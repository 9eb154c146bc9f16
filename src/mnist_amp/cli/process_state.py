"""The state of a process that a command changes. A program that runs a command as a function keeps its own."""

import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.pytorch.utilities.seed import isolate_rng

from mnist_amp import errors, signals
from mnist_amp.cli import processes
from mnist_amp.lightning_internals import process_observer, replace_process_observer
from mnist_amp.training import compilation


@contextmanager
def restored(levels: Mapping[str, int]) -> Iterator[None]:
    """Restore at the end of this block what a command changes in its process.

    These are the handlers of signals, environment variables, warnings, loggers, settings of torch, the folders of
    imports, the modules of the current folder that were imported, and the random numbers, if the command sets a seed:
    otherwise a loop that draws settings at random and fits with them would draw the same ones each time.

    Args:
        levels: of loggers, before the imports of the command changed them.
    """
    random_numbers = isolate_rng(include_cuda=torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    random_numbers.__enter__()
    with signals.kept_handlers(), warnings.catch_warnings(), ExitStack() as undo:
        for restore in (*_python(levels), *_torch()):
            undo.callback(restore)
        try:
            yield
        finally:
            if "PL_GLOBAL_SEED" in os.environ:  # otherwise no seed was set, so the random numbers continue
                random_numbers.__exit__(None, None, None)


def _python(levels: Mapping[str, int]) -> Iterator[Callable[[], None]]:
    """Yield functions that restore the state of Python; the last runs first."""
    environment, path, prints = dict(os.environ), list(sys.path), errors.prints
    levels = {**levels, **{name: logging.getLogger(name).level for name in compilation.LOGGERS}}
    hook, collecting, modules = threading.excepthook, gc.isenabled(), set(sys.modules)

    def restore() -> None:
        _set_environment(environment)
        sys.path[:], errors.prints, threading.excepthook = path, prints, hook
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

    def collect() -> None:
        # the modules, data and results of a fit refer to each other; what was imported is frozen, so this is quick
        gc.collect()
        (gc.enable if collecting else gc.disable)()

    yield collect
    yield restore
    yield lambda: _forget_own_modules(modules)


def _set_environment(variables: dict[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


def _forget_own_modules(before: set[str]) -> None:
    """Forget the modules of the current folder that a command has imported: the next one imports changed files again.

    Args:
        before: the names of the modules that the program had imported itself.
    """
    roots = {name.partition(".")[0] for name in set(sys.modules) - before}
    own = {name for name in roots - before if _is_here(name)}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def _is_here(name: str) -> bool:
    """Whether a module is a file or a package in the current folder."""
    spec: Any = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or not spec.has_location:
        return False
    origin = Path(spec.origin)
    return Path.cwd() in (origin.parent.parent if origin.name == "__init__.py" else origin.parent,)


def _torch() -> Iterator[Callable[[], None]]:
    """Yield functions that restore the settings of torch, and Lightning's observer of other processes."""
    backends: Any = torch.backends
    cudnn = backends.cudnn
    products = (backends.cuda.matmul, cudnn.conv, cudnn.rnn, backends.mkldnn.matmul)
    precisions = [each.fp32_precision for each in products]
    matmul, tf32 = _former(torch.get_float32_matmul_precision, "highest"), _former(lambda: cudnn.allow_tf32, True)
    flags, in_group = (cudnn.benchmark, cudnn.deterministic), _is_in_group()
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    observer = process_observer()

    def restore() -> None:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = tf32
        for product, precision in zip(products, precisions, strict=True):
            product.fp32_precision = precision
        cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        replace_process_observer(observer)
        if not in_group:
            processes.leave_group()

    yield restore


def _former(read: Callable[[], Any], default: Any) -> Any:
    """Return a setting of torch's former interface for precisions; its default if the program uses the new one only.

    Torch keeps both, and refuses to read the former one if they contradict each other.
    """
    try:
        return read()
    except RuntimeError:
        return default


def _is_in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
