import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mnist_amp.complaints import explained, reworded
from mnist_amp.errors import RunError


def test_more_gpus_than_there_are() -> None:
    error = MisconfigurationException("You requested gpu: [0, 1, 2, 3]\n But your machine only has: [0]")
    assert explained(error) == (
        "trainer.devices asks for more GPUs than there are. You requested gpu: [0, 1, 2, 3] But your machine only has: [0]"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RunError("as it is\nin two lines"), "as it is\nin two lines"),
        (MisconfigurationException("in\n two lines"), "in two lines"),
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            "x can't be read or written: No such file or directory.",
        ),
        (KeyError("x"), "KeyError: 'x'\nSet MNIST_AMP_DEBUG=1 to see where it came from."),
        (
            RuntimeError("[gloo] Connection closed by peer"),
            "another process of this run was lost, killed or by an error of its own, so this one has ended, too. What was "
            "saved is whole: go on with --ckpt_path last. ([gloo] Connection closed by peer)",
        ),
    ],
)
def test_errors(error: Exception, text: str) -> None:
    assert explained(error) == text


def test_a_complaint_of_another_form_is_kept() -> None:
    error = reworded("something\n  else", ["--a"])
    assert (str(error), error.key) == ("something else.", "")
