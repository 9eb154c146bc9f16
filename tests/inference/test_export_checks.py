"""The checks of exported files."""

from pathlib import Path

import pytest
import torch

from mnist_amp.data import mnist
from mnist_amp.data.normalization import normalize
from mnist_amp.inference.export_checks import MismatchError, check, check_exact
from mnist_amp.inference.export_results import Agreement
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.networks.simple_nn import SimpleNN


@pytest.mark.parametrize("width", [1, 16, 4096])
@torch.no_grad()
def test_rounding_is_allowed_for_at_any_width(data_dir: Path, width: int) -> None:
    torch.manual_seed(width)
    model, images = SimpleNN(width), mnist.load(data_dir, train=False)[0][:300]
    for dtype in DTYPES.values():
        check(PixelNetwork(model, dtype)(images), model(normalize(images)), dtype)


def test_logits_are_compared_with_the_checkpoints() -> None:
    wanted = torch.tensor([[0.0, 1.0, -2.0], [4.0, 3.9990234375, 0.0]])
    near, swapped = wanted + torch.tensor([0.0, 0.0078125, 0.0]), wanted[:, [1, 0, 2]]
    assert check(near, wanted, torch.float16) == Agreement(
        differing_guesses=1, largest_difference=0.0078125, allowed_difference=4 * 2**-10 * 4
    )
    assert check(wanted, wanted, torch.float32) == Agreement(
        differing_guesses=0, largest_difference=0.0, allowed_difference=32 * 2**-23 * 4
    )
    for logits, dtype, message in (
        (near, torch.float32, "1 of 2 guesses differ, and a logit differs by 0.0078; rounding explains 1.5e-05"),
        (swapped, torch.bfloat16, "2 of 2 guesses differ, and a logit differs by 1; rounding explains 0.12"),
        (
            wanted * torch.nan,
            torch.float32,
            "1 of 2 guesses differ, and a logit differs by nan; rounding explains 1.5e-05",
        ),
        (wanted[:1], torch.float32, "its logits have shape (1, 3) instead of (2, 3)"),
    ):
        with pytest.raises(MismatchError) as error:
            check(logits, wanted, dtype)
        assert str(error.value) == message


def test_a_torch_file_must_compute_exactly_the_same() -> None:
    wanted = torch.eye(3)
    for wrong, differing, largest in ((wanted[[0, 1, 1]], 1, "1"), (wanted + torch.eye(3) / 50, 0, "0.02")):
        with pytest.raises(MismatchError) as error_info:
            check_exact(wrong, wanted, torch.bfloat16)
        assert str(error_info.value) == (
            f"{differing} guesses differ from those of the network that it was exported from, and a logit "
            f"differs by {largest}"
        )
    check_exact(wanted + torch.eye(3) / 150, wanted, torch.bfloat16)
