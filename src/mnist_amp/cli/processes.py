"""The processes of a distributed run on one machine: if one fails, the first reports it, once for all."""

import os
import subprocess
import sys
import time

from mnist_amp import signals
from mnist_amp.lightning_internals import ChildProcessObserver, replace_process_observer

GRACE = 5.0  # seconds that the first process has to notice by itself that another was lost


class Observer(ChildProcessObserver):
    """Ends the first process after another has failed; Lightning's own observer does so before it can report."""

    def on_lost(self) -> None:
        time.sleep(GRACE)  # mostly the process ends by itself meanwhile, and this thread with it
        sys.stderr.write("mnist-amp: error: another process of this run was killed or failed, so this one has ended.\n")


def observe(processes: list[subprocess.Popen[bytes]]) -> None:
    """Watch the processes that this one has started."""
    signals.child_processes.extend(processes)
    Observer(main_pid=os.getpid(), child_processes=processes).start()


def install_observer() -> None:
    """Have Lightning's launcher start this observer instead of its own."""
    replace_process_observer(observe)
