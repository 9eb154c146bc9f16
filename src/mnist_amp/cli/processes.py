"""The processes of a distributed run on a machine: where it fails, the first one says why, once for all of them."""

import os
import subprocess
import sys
import time

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers import subprocess_script

from mnist_amp import signals

GRACE = 5.0  # seconds that the first process has to find that it lost another


class Observer(_ChildProcessObserver):
    """Ends the first process when another has failed; Lightning's own does so before the first could say a word."""

    def _terminate_all(self) -> None:
        time.sleep(GRACE)  # the process mostly ends by its own meanwhile, and this thread with it
        sys.stderr.write("mnist-amp: error: another process of this run was lost, so this one is ended, too.\n")
        super()._terminate_all()


def observe(processes: list[subprocess.Popen[bytes]]) -> None:
    """Watch over the processes that this one has started."""
    signals.others.extend(processes)
    Observer(main_pid=os.getpid(), child_processes=processes).start()


def prepare() -> None:
    """Have Lightning's launcher start this observer in the place of its own."""
    subprocess_script._launch_process_observer = observe  # type: ignore[attr-defined, assignment]
