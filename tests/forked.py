"""`mnist-amp` in processes forked from one that has imported it: the import alone takes seconds.

They can be sent signals, killed and waited for. Tests of what happens before and during the imports start
`python -m mnist_amp` instead.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mnist_amp.measuring.fit_measurements", "matplotlib.figure"])


class Forked:
    """The command with these arguments, in the environment of this process, updated with `env`."""

    def __init__(self, *args: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        self._files = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115  (they live as long as this object)
        written = [file.name for file in self._files]
        self._process = CONTEXT.Process(target=_main, args=(args, cwd, {**os.environ, **(env or {})}, written))
        self._process.daemon = True
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative if a signal killed it; None if it still runs."""
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = 300.0) -> int:
        """Wait for the end, and return the exit status."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it has not ended"
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """The stdout so far."""
        return Path(self._files[0].name).read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """The stderr so far."""
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
