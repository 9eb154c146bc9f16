"""Signals that stop a command: at once if there is nothing to save, otherwise between two steps of a run."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mnist_amp import errors


class Stopped(Exception):  # noqa: N818  (it is no error)
    """A command was stopped by a signal, and has saved its results.

    Args:
        signum: the signal; the exit status is 128 more, by convention.
        when: what is saved, and how to resume.
    """

    def __init__(self, signum: int, when: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {when}")
        self.signum = signum


HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
Handlers = dict[signal.Signals, Any]

# the handlers of a program that runs a command as a function; None if the process is the command's own
of_program: Handlers | None = None


def install_handlers(handler: Callable[[int, FrameType | None], None] | None = None) -> None:
    """Have SIGINT and SIGTERM end this process at once, until a run installs its own handlers.

    Args:
        handler: called instead.
    """
    wanted = [signal.SIGINT, signal.SIGTERM]
    # an ignored signal stays ignored, as under nohup
    set_handlers({each: handler or end_at_once for each in wanted if signal.getsignal(each) is not signal.SIG_IGN})


def set_handlers(handlers: Handlers) -> Handlers:
    """Set the handlers of signals, and return those from before. Only the main thread can; others set none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Let a program that runs a command as a function keep its handlers: they are restored at the end of this block.

    A signal that would end the process at once is handled by the program's own handler in this block.
    """
    global of_program
    before, outer = {each: signal.getsignal(each) for each in HANDLED}, of_program
    of_program = before
    try:
        yield
    finally:
        of_program = outer
        set_handlers({signum: handler for signum, handler in before.items() if handler is not None})


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt(signum) in this block, so that it can clean up."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    install_handlers(_interrupt)
    try:
        yield
    finally:
        set_handlers({signum: handler for signum, handler in before.items() if handler is not None})


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def end_at_once(signum: int, frame: FrameType | None = None) -> None:
    """End the process with one line. An exception could be caught by the code that is imported or run now.

    A program that runs a command as a function is not ended: its own handler is called.
    """
    own = None if of_program is None else of_program[signal.Signals(signum)] or signal.SIG_DFL
    if own not in (None, end_at_once):
        set_handlers({signal.Signals(signum): own})
        signal.raise_signal(signum)
        return
    _print(f"mnist-amp: stopped by {signal.Signals(signum).name} at once.\n")
    end_child_processes()
    os._exit(128 + signum)


# the other processes of a distributed run, which this process has started
child_processes: list[Any] = []


def end_child_processes() -> None:
    """Kill them before they notice that this process is gone, and report it as an error."""
    for process in child_processes:
        process.kill()


def _print(text: str) -> None:
    if errors.prints:
        os.write(2, text.encode())  # print is not safe in a signal handler


class StopRequest:
    """Remembers the first SIGINT, SIGTERM, SIGHUP or SIGUSR1; a second SIGINT ends the process at once.

    If SLURM requeues the job, Lightning handles SIGUSR1, between two steps.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.requeue = False  # whether SLURM has asked for it
        self._before: Handlers = {}

    def install(self) -> None:
        """Install the handlers instead of the present ones."""
        stopping = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if callable(signal.getsignal(signal.SIGUSR1)):  # Lightning's handler, which saves even within a step
            self._before |= set_handlers({signal.SIGUSR1: self._note_requeue})
        else:
            stopping.append(signal.SIGUSR1)
        stopping = [signum for signum in stopping if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before |= set_handlers(dict.fromkeys(stopping, self._note))

    def restore(self) -> None:
        """Restore the handlers from before."""
        set_handlers(self._before)
        self._before = {}

    def do_requeue(self) -> None:
        """Have Lightning save its checkpoint and requeue the job; the run continues until SLURM ends it."""
        self.requeue = False
        self._before[signal.SIGUSR1](signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            end_at_once(signum)
        self.signum = self.signum or signum
        _print("\nStopping after this step; press Ctrl-C again to stop at once.\n")

    def _note_requeue(self, signum: int, frame: FrameType | None) -> None:
        self.requeue = True
