"""The processes of a distributed run on a machine: where it fails, the first one says why, once for all of them."""

import os
import subprocess
import sys
import time

from mnist_amp import signals
from mnist_amp.lightning_internals import ChildProcessObserver, replace_process_observer

GRACE = 5.0  # seconds that the first process has to find that it lost another


class Observer(ChildProcessObserver):
    """Ends the first process when another has failed; Lightning's own does so before the first could say a word."""

    def on_lost(self) -> None:
        time.sleep(GRACE)  # the process mostly ends by its own meanwhile, and this thread with it
        sys.stderr.write("mnist-amp: error: another process of this run was lost, so this one is ended, too.\n")


def observe(processes: list[subprocess.Popen[bytes]]) -> None:
    """Watch over the processes that this one has started."""
    signals.others.extend(processes)
    Observer(main_pid=os.getpid(), child_processes=processes).start()


def prepare() -> None:
    """Have Lightning's launcher start this observer in the place of its own."""
    replace_process_observer(observe)
