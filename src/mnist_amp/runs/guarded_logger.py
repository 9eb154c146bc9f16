"""Loggers that may fail: a tracker's server that can't be reached does not end the run."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from mnist_amp.errors import warn

LONGEST = 200  # characters of a package's own message


class Guarded(Logger):
    """The part of a guarded logger that keeps its errors from the run; `guard` puts it before the logger's own class.

    After an error the logger is not tried again before the end of the run, because each try may wait for a timeout.
    Then it gets what it missed.

    Attributes:
        failed: whether an error has occurred, and no try after it has succeeded.
        missed: the calls since then.        close: called after the logger has ended the run.
    """

    failed: bool
    warned: bool
    missed: list[Callable[[], None]]
    close: Callable[[], None]

    @property
    def experiment(self) -> Any:
        if not self.failed:
            try:
                return super().experiment  # type: ignore[misc]
            except Exception as error:  # each package has its own
                self._fail(error)
        return DummyLogger().experiment

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
        if not self.failed:
            try:
                call(*args, **kwargs)
            except Exception as error:
                self._fail(error)
        if self.failed:  # perhaps within the call, which then got a dummy
            self.missed.append(partial(call, *args, **kwargs))

    def _send_missed(self) -> None:
        """Make the calls that were missed. One that fails alone is left out; after two in a row, so are the others."""
        waiting, self.missed, self.failed = self.missed, [], False
        failures = 0
        for call in waiting:
            self.failed = False
            self.attempt(call)
            failures = failures + 1 if self.failed else 0
            if failures == 2:
                return
        self.failed = False

    def _fail(self, error: Exception) -> None:
        self.failed = True
        if not self.warned:
            text = " ".join(str(error).split())
            text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
            warn(
                f"{type(self).__name__} failed, and the run continues without it: {type(error).__name__}: {text} "
                "It gets what it missed at the end of the run, if it works then. metrics.csv has all metrics."
            )
        self.warned = True


def guard(logger: Logger, close: Callable[[], None]) -> None:
    """Keep the errors of a logger from the run, and end the run in its tracker after the logger has.

    A logger that writes files of this machine is left as it is.
    """
    if isinstance(logger, CSVLogger | TensorBoardLogger | Guarded):
        return
    kind = type(logger)
    # it stays an instance of its class, which callbacks of others look for
    logger.__class__ = type(kind.__name__, (Guarded, kind), {})
    vars(logger).update(failed=False, warned=False, missed=[], close=close)
