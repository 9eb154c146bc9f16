"""Signals that ask a run to stop. They only set a flag, which the run looks at between two steps."""

import os
import signal
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


class StopRequest:
    """Remembers the first SIGINT, SIGTERM, SIGHUP or SIGUSR1; a second SIGINT ends the process at once.

    Where SLURM requeues the job, SIGTERM stays with Lightning, and so does SIGUSR1, but only between two steps.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.requeue = False  # asked for
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Replace the handlers there are."""
        asking = [signal.SIGINT, signal.SIGHUP]
        if callable(signal.getsignal(signal.SIGUSR1)):  # Lightning's, which saves in whichever step it comes
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_requeue)
        else:
            asking += [signal.SIGTERM, signal.SIGUSR1]
        # what is ignored stays so, as with nohup
        asking = [signum for signum in asking if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before |= {signum: signal.signal(signum, self._note) for signum in asking}

    def forget(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def do_requeue(self) -> None:
        """Let Lightning write its checkpoint and have SLURM start the job again; the run goes on meanwhile."""
        self.requeue = False
        self._before[signal.SIGUSR1](signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.signum = self.signum or signum
        os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once.\n")  # print is not safe here

    def _note_requeue(self, signum: int, frame: FrameType | None) -> None:
        self.requeue = True
