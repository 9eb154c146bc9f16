import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mnist_amp.cli.error_messages import describe_error, translate_error
from mnist_amp.errors import RequestError, RunError


def test_more_gpus_than_there_are() -> None:
    error = MisconfigurationException("You requested gpu: [0, 1, 2, 3]\n But your machine only has: [0]")
    text = "You requested gpu: [0, 1, 2, 3] But your machine only has: [0]"
    assert describe_error(error) == (f"trainer.devices asks for more GPUs than this machine has. {text}", 2)


@pytest.mark.parametrize(
    ("error", "text", "status"),
    [
        (RunError("as it is\nin two lines"), "as it is\nin two lines", 1),
        (RequestError("not so"), "not so", 2),
        (MisconfigurationException("in\n two lines"), "in two lines", 2),
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            "x can't be read or written: No such file or directory.",
            1,
        ),
        (KeyError("x"), "KeyError: 'x'\nSet MNIST_AMP_DEBUG=1 to see where it came from.", 1),
        (
            RuntimeError("[gloo] Connection closed by peer"),
            "another process of this run was killed or failed, so this one has ended. If the run has saved a checkpoint, "
            "this resumes it, in as many processes or in another number: mnist-amp fit --ckpt_path last "
            "([gloo] Connection closed by peer)",
            1,
        ),
    ],
)
def test_each_error_has_its_message_and_status(error: Exception, text: str, status: int) -> None:
    assert describe_error(error) == (text, status)


def test_a_message_of_an_unknown_form_is_kept() -> None:
    error = translate_error("something\n  else", ["--a"])
    assert (str(error), error.key) == ("something else.", "")
