"""Signals that stop a command: at once if there is nothing to save, otherwise between two steps of a run."""

import os
import signal
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


def install_handlers(handler: Callable[[int, FrameType | None], None] | None = None) -> None:
    """Have SIGINT and SIGTERM end this process at once, until a run installs its own handlers.

    Args:
        handler: called instead.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # an ignored signal stays ignored, as under nohup
            signal.signal(signum, handler or end_at_once)


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt(signum) in this block, so that it can clean up."""
    install_handlers(_interrupt)
    try:
        yield
    finally:
        install_handlers()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def end_at_once(signum: int, frame: FrameType | None = None) -> None:
    """End the process with one line. An exception could be caught by the code that is imported or run now."""
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
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Install the handlers instead of the present ones."""
        stopping = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if callable(signal.getsignal(signal.SIGUSR1)):  # Lightning's handler, which saves even within a step
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_requeue)
        else:
            stopping.append(signal.SIGUSR1)
        stopping = [signum for signum in stopping if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before |= {signum: signal.signal(signum, self._note) for signum in stopping}

    def restore(self) -> None:
        """Restore the handlers from before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
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
