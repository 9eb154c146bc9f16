"""Loggers that may fail: a tracker's server that can't be reached does not end the run."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from mnist_amp.errors import warn

LONGEST = 200  # characters of a package's own message
MOST_FAILURES = 2  # in a row, when a logger is tried again


class Guarded(Logger):
    """The part of a guarded logger that keeps its errors from the run; `guard` puts it before the logger's own class.

    After an error the logger is not tried again before the end of the run, because each try may wait for a timeout.
    Then it gets what it missed.

    Attributes:
        failed: whether an error has occurred, and no try after it has succeeded.
        missed: the calls since then.
        has_worked: whether any call has succeeded.
        close: called after the logger has ended the run.
    """

    failed: bool
    warned: bool
    attempting: bool
    has_worked: bool
    missed: list[Callable[[], None]]
    close: Callable[[], None]

    @property
    def name(self) -> str | None:
        return self._read(lambda: super(Guarded, self).name)  # type: ignore[no-any-return,safe-super]

    @property
    def version(self) -> int | str | None:
        return self._read(lambda: super(Guarded, self).version)  # type: ignore[no-any-return,safe-super]

    @property
    def save_dir(self) -> str | None:
        return self._read(lambda: super(Guarded, self).save_dir)  # type: ignore[no-any-return]

    @property
    def log_dir(self) -> str | None:
        return self._read(lambda: super(Guarded, self).log_dir)  # type: ignore[no-any-return]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(super().log_metrics, dict(metrics), step)  # type: ignore[safe-super]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self.attempt(super().log_hyperparams, *args, **kwargs)  # type: ignore[safe-super]

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.attempt(super().after_save_checkpoint, checkpoint_callback)

    def save(self) -> None:
        self.attempt(super().save)

    def finalize(self, status: str) -> None:
        self._send_missed()
        self.attempt(super().finalize, status)
        self.attempt(self.close)

    def attempt(self, call: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call a function that uses the logger; if the logger fails or has failed, keep the call for the end."""
        if self.attempting:  # a part of another call, which is kept as a whole
            call(*args, **kwargs)
            return
        if not self.failed:
            self.attempting = True
            try:
                call(*args, **kwargs)
                self.has_worked = True
            except Exception as error:  # each package has its own
                self._fail(error)
            finally:
                self.attempting = False
        if self.failed:
            self.missed.append(partial(call, *args, **kwargs))

    def _read(self, read: Callable[[], Any]) -> Any:
        """Return an attribute of the logger's own class, which may ask the server for it; None if this fails."""
        if self.attempting:
            return read()
        try:
            return None if self.failed else read()
        except Exception as error:
            self._fail(error)
            return None

    def _send_missed(self) -> None:
        """Make the calls that were missed. One that fails alone is left out; after two in a row, so are the others."""
        waiting, self.missed, self.failed = self.missed, [], False
        failures = 0
        for call in waiting:
            self.failed = False
            self.attempt(call)
            failures = failures + 1 if self.failed else 0
            if failures == MOST_FAILURES or (self.failed and not self.has_worked):
                return
        self.failed = False

    def _fail(self, error: Exception) -> None:
        self.failed = True
        if not self.warned:
            text = without_passwords(" ".join(str(error).split()))
            # the last words are often the cause, such as "Connection refused"
            text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
            warn(
                f"{type(self).__name__} failed. The run continues without it, and its own files are complete. "
                "The logger gets what it missed at the end of the run, if it works then. "
                f"The error is {type(error).__name__}: {text}"
            )
        self.warned = True


def guard(logger: Logger, close: Callable[[], None]) -> None:
    """Keep the errors of a logger from the run, and end the run in its tracker after the logger has.

    A logger that writes files of this machine is left as it is.
    """
    if isinstance(logger, CSVLogger | TensorBoardLogger | Guarded):
        return
    kind = type(logger)
    # Lightning reads `experiment` where a logger has it
    more = {"experiment": property(_experiment)} if hasattr(kind, "experiment") else {}
    # it stays an instance of its class, which callbacks of others look for
    logger.__class__ = type(kind.__name__, (Guarded, kind), more)
    vars(logger).update(failed=False, warned=False, attempting=False, has_worked=False, missed=[], close=close)


def _experiment(logger: Guarded) -> Any:
    """Return the object of the tracker's package; one that does nothing if the logger has failed."""
    experiment = logger._read(lambda: super(Guarded, logger).experiment)  # type: ignore[misc]
    return DummyLogger().experiment if experiment is None else experiment


def without_passwords(text: str) -> str:
    """Return a text in which addresses have no user and no password.

    Examples:
        >>> without_passwords("no answer from http://me:secret@127.0.0.1:5000/")
        'no answer from http://127.0.0.1:5000/'
    """
    return re.sub(r"://[^/@\s]+@", "://", text)
