import os
import signal

import pytest

from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring.isolated_process import run_isolated


def square(number: int) -> tuple[int, int]:
    """Return the square and the id of the process."""
    return number**2, os.getpid()


def refuse() -> None:
    raise RequestError("no")


def fail() -> None:
    raise MemoryError("can't allocate memory")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_call_has_its_own_process() -> None:
    (nine, first), (sixteen, second) = run_isolated(square, 3), run_isolated(square, 4)
    assert (nine, sixteen) == (9, 16)
    assert len({os.getpid(), first, second}) == 3


def test_errors_are_raised_in_the_caller() -> None:
    with pytest.raises(RequestError, match=r"^no$"):
        run_isolated(refuse)
    with pytest.raises(
        RunError, match=r"^this machine has too little memory\. Lower data.batch_size, or make the network smaller\. "
    ):
        run_isolated(fail)


def test_a_process_that_dies_is_reported() -> None:
    with pytest.raises(RunError, match=r"^the process died with exit status -9; it may have run out of memory$"):
        run_isolated(die)
