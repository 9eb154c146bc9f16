"""Signals that ask a command to stop: at once where there is nothing to save, else between two steps of a run."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(Exception):  # noqa: N818  (it is no error)
    """A command ended by a signal, after what it had done was saved.

    Args:
        signum: the signal; by convention the exit status is 128 more.
        when: what was done, and how to go on.
    """

    def __init__(self, signum: int, when: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {when}")
        self.signum = signum


def install_handlers(handler: Callable[[int, FrameType | None], None] | None = None) -> None:
    """Have SIGINT and SIGTERM end this process at once, from now until a run listens for itself.

    Args:
        handler: what they do in the place of that.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # what is ignored stays so, as with nohup
            signal.signal(signum, handler or end_at_once)


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt with their number meanwhile, for what was begun to be tidied."""
    install_handlers(_interrupt)
    try:
        yield
    finally:
        install_handlers()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def end_at_once(signum: int, frame: FrameType | None = None) -> None:
    """End the process with a line; an exception could be swallowed by whatever is being imported or run."""
    _say(f"mnist-amp: stopped by {signal.Signals(signum).name} at once.\n")
    end_others()
    os._exit(128 + signum)


# the other processes of a distributed run that this one has started
others: list[Any] = []


def end_others() -> None:
    """End them before they find this one gone and complain of it."""
    for process in others:
        process.kill()


def _say(text: str) -> None:
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        os.write(2, text.encode())  # print is not safe in a signal's handler


class StopRequest:
    """Remembers the first SIGINT, SIGTERM, SIGHUP or SIGUSR1; a second SIGINT ends the process at once.

    Where SLURM requeues the job, SIGUSR1 is left to Lightning, but only between two steps.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.requeue = False  # asked for
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Replace the handlers there are."""
        asking = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if callable(signal.getsignal(signal.SIGUSR1)):  # Lightning's, which saves in whichever step it comes
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_requeue)
        else:
            asking.append(signal.SIGUSR1)
        asking = [signum for signum in asking if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before |= {signum: signal.signal(signum, self._note) for signum in asking}

    def restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def do_requeue(self) -> None:
        """Let Lightning write its checkpoint and have SLURM start the job again; the run goes on meanwhile."""
        self.requeue = False
        self._before[signal.SIGUSR1](signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            end_at_once(signum)
        self.signum = self.signum or signum
        _say("\nStopping after this step; press Ctrl-C again to stop at once.\n")

    def _note_requeue(self, signum: int, frame: FrameType | None) -> None:
        self.requeue = True
