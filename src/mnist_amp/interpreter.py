"""A quick start and end of the interpreter, in the process of the command.

torch and Lightning make hundreds of thousands of objects when they are imported. Python's garbage collector searches
them again and again meanwhile, and once more at the end, when the interpreter also takes every module apart. This
takes almost two seconds, and finds next to nothing.
"""

import atexit
import gc
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# what Python's files for text and bytes are made of; those without a buffer need no flush
BUFFERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


ends_quickly = False  # whether this process ends by `quick_exit`


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector in this context.

    If the process ends by `quick_exit`, the collector then ignores all that was made before. Otherwise it must not: at
    the end, packages would report that objects are left.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ends_quickly:
            gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def quick_exit() -> Iterator[None]:
    """Have the process that leaves this context end without taking its modules apart.

    As always, threads are joined, functions of `atexit` are called, open files are flushed, and garbage is collected,
    with a call of `__del__`. The process ends as usual if another exception than SystemExit leaves the context, or if a
    file can't be flushed, because the interpreter reports that.
    """
    global ends_quickly
    ends_quickly = True
    statuses: list[int] = []
    atexit.register(_end, statuses)  # the first that is registered is called last
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, int):
            statuses.append(end.code)
        raise
    statuses.append(0)


def _end(statuses: list[int]) -> None:
    if statuses:
        with suppress(OSError):  # a file can't be written
            _flush(gc.get_objects())  # first, because the collector may close a file before its buffer is written
            gc.collect()
            _flush([sys.stdout, sys.stderr])
            os._exit(statuses[0])
    gc.unfreeze()


def _flush(objects: Iterable[Any]) -> None:
    """Flush those of these objects that are open files."""
    for each in objects:
        if issubclass(type(each), BUFFERS):  # isinstance would ask the object, and a lazy module imports something then
            with suppress(ValueError):  # it is closed
                each.flush()
