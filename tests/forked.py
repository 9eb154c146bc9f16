"""`mnist-amp` in processes forked from one that has imported it already, as each would take seconds for that alone.

They are sent signals, killed and waited for as any other; what an interpreter does before that is for those tests that
start `python -m mnist_amp`.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mnist_amp.measuring.fit_measurements", "matplotlib.figure"])


class Forked:
    """The command with these arguments, in the environment that this process has now, but for `env`."""

    def __init__(self, *args: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        self._files = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115  (while this object is there)
        written = [file.name for file in self._files]
        self._process = CONTEXT.Process(target=_main, args=(args, cwd, {**os.environ, **(env or {})}, written))
        self._process.daemon = True
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, if it has ended: as subprocess has it, less than 0 if a signal killed it."""
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = 300.0) -> int:
        """Wait until it has ended; returns the exit status."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return Path(self._files[0].name).read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return Path(self._files[1].name).read_text(encoding="utf-8")


def _main(args: tuple[str, ...], cwd: Path, env: dict[str, str], written: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.argv = ["mnist-amp", *args]
    from mnist_amp.__main__ import main

    main()
