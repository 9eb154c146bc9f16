"""A logger that fails does not end the run, and gets at its end what it missed."""

from collections.abc import Mapping
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from mnist_amp.runs.guarded_logger import Guarded, guard

WARNING = (
    "mnist-amp: warning: Remote failed, and the run continues without it: ConnectionError: no route to the host It "
    "gets what it missed at the end of the run, if it works then. metrics.csv has all metrics.\n"
)


class Remote(Logger):
    """A logger whose server can be switched off.

    Attributes:
        got: the calls that reached the server.
        tries: the calls, also those that did not reach it.
    """

    version = None
    name = "remote"

    def __init__(self) -> None:
        self.works, self.tries = True, 0
        self.got: list[Any] = []

    @property
    def experiment(self) -> "Remote":
        self.tries += 1
        if not self.works:
            raise ConnectionError("no route\nto the host")
        return self

    def append(self, *what: Any) -> None:
        self.got.append(what)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.append(step, metrics)

    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        self.experiment.append(params)

    def finalize(self, status: str) -> None:
        self.experiment.append(status)


@pytest.fixture
def remote() -> Any:
    logger = Remote()
    guard(logger, close=lambda: logger.got.append("closed"))
    return logger


def test_a_logger_that_works_is_not_changed(remote: Any, capsys: pytest.CaptureFixture[str]) -> None:
    remote.log_hyperparams({"lr": 0.1})
    remote.log_metrics({"loss": 1.0}, step=3)
    remote.finalize("success")
    assert remote.got == [({"lr": 0.1},), (3, {"loss": 1.0}), ("success",), "closed"]
    assert isinstance(remote, Guarded)
    assert type(remote).__name__ == "Remote"
    assert capsys.readouterr().err == ""


def test_what_was_missed_is_sent_at_the_end(remote: Any, capsys: pytest.CaptureFixture[str]) -> None:
    remote.log_metrics({"loss": 1.0}, step=0)
    remote.works = False
    remote.log_metrics({"loss": 0.5}, step=1)
    tries = remote.tries
    row = {"loss": 0.25}
    remote.log_metrics(row, step=2)
    row.clear()  # Lightning uses its dict again
    remote.log_hyperparams({"best": 1})
    assert remote.tries == tries  # because each try may take seconds
    remote.works = True
    remote.finalize("success")
    assert remote.got == [
        *((0, {"loss": 1.0}), (1, {"loss": 0.5}), (2, {"loss": 0.25}), ({"best": 1},)),
        *(("success",), "closed"),
    ]
    assert capsys.readouterr().err == WARNING


def test_a_logger_that_never_works_is_reported_once(remote: Any, capsys: pytest.CaptureFixture[str]) -> None:
    remote.works = False
    for step in range(3):
        remote.log_metrics({"loss": 1.0}, step=step)
    remote.experiment.add_anything(1)  # of the user's own code
    remote.finalize("success")
    assert remote.got == []
    assert remote.tries == 3  # the first, and two at the end
    assert capsys.readouterr().err == WARNING


def test_a_call_that_fails_alone_does_not_lose_the_others(remote: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise ConnectionError("no route to the host")

    remote.attempt(refused)
    remote.log_metrics({"loss": 1.0}, step=0)
    remote.attempt(refused)
    remote.log_metrics({"loss": 0.5}, step=1)
    assert remote.got == []
    remote.finalize("success")
    assert remote.got == [(0, {"loss": 1.0}), (1, {"loss": 0.5}), ("success",), "closed"]
    assert capsys.readouterr().err == WARNING


def test_an_experiment_that_can_not_be_made(remote: Any, capsys: pytest.CaptureFixture[str]) -> None:
    remote.works = False
    assert remote.experiment is not remote
    assert remote.missed == []
    remote.log_metrics({"loss": 1.0}, step=0)
    assert len(remote.missed) == 1
    assert capsys.readouterr().err == WARNING


def test_a_long_message_is_shortened(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("mnist_amp.runs.guarded_logger.warn", warnings.append)

    def fail() -> None:
        raise ValueError("x" * 1000)

    remote.attempt(fail)
    assert f"ValueError: {'x' * 200} ... It gets" in warnings[0]


def test_files_of_this_machine_are_not_guarded() -> None:
    logger = CSVLogger("logs")
    guard(logger, close=lambda: None)
    assert type(logger) is CSVLogger


def test_an_interrupt_is_not_kept(remote: Any) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.attempt(interrupted)
