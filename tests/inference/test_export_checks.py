"""The checks of exported files."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mnist_amp.data.normalization import TO_UNIT
from mnist_amp.inference.export_checks import (
    EPSILONS,
    MismatchError,
    check,
    check_exact,
    check_int8,
    compute_logits,
    count_layers,
    measure_latency,
)
from mnist_amp.inference.export_results import Agreement, Latency
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.networks import CNN, SimpleNN
from mnist_amp.networks.factory import make_network

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "narrow": lambda: SimpleNN(1),
    "wide": lambda: SimpleNN(4096),
    "cnn": lambda: CNN(16),
    "deep": lambda: make_network({"class_path": "torchvision.models.resnet18", "init_args": {}}, 10, (3, 32, 32)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_rounding_is_allowed_for_and_a_wrong_normalisation_is_not(kind: str) -> None:
    """Rounding takes at most half of the allowed difference. A guess differs only where the checkpoint is unsure."""
    torch.manual_seed(0)
    model = NETWORKS[kind]().eval()
    shape = (3, 32, 32) if kind == "deep" else (1, 28, 28)
    images = torch.randint(0, 256, (40, *shape), dtype=torch.uint8)
    wanted, layers = model(TO_UNIT(images)), count_layers(model)
    for dtype in DTYPES.values():
        logits = PixelNetwork(model, TO_UNIT, dtype)(images)
        agreement = check(logits, wanted, dtype, layers)
        assert agreement.allowed_difference is not None
        assert agreement.largest_difference <= agreement.allowed_difference / 2
        margins = wanted.max(dim=1).values - wanted.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
        assert margins.max() <= 2 * agreement.allowed_difference
        with pytest.raises(MismatchError):
            check(model.float()(images.float()), wanted, dtype, layers)


@torch.no_grad()
def test_perturbed_weights_are_found() -> None:
    """A weight that is wrong by 1 % of the largest is found in float32; a layer that is wrong by 10 % in all."""
    torch.manual_seed(0)
    model, images = SimpleNN(128), torch.randint(0, 256, (500, 1, 28, 28), dtype=torch.uint8)
    wanted = model(TO_UNIT(images))
    before = model.fc2.weight.clone()
    for dtype in DTYPES.values():
        model.fc2.weight.copy_(before * 1.1)
        with pytest.raises(MismatchError):
            check(PixelNetwork(model, TO_UNIT, dtype)(images), wanted, dtype, 2)
    model.fc2.weight.copy_(before)
    model.fc2.weight[0, 0] += before.abs().max() / 100
    with pytest.raises(MismatchError):
        check(PixelNetwork(model, TO_UNIT)(images), wanted, torch.float32, 2)


def test_layers_are_counted() -> None:
    assert [count_layers(network) for network in (SimpleNN(), CNN(), nn.Flatten())] == [2, 4, 1]


def test_batches_have_several_sizes() -> None:
    sizes = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return batch.flatten(1).float()

    images = torch.arange(2500).reshape(2500, 1, 1, 1)
    assert torch.equal(compute_logits(network, images), images.flatten(1).float())
    assert sizes == [1, 7, 1000, 1000, 492]


def test_logits_are_compared_with_the_checkpoints() -> None:
    wanted = torch.tensor([[0.0, 1.0, -2.0], [4.0, 3.9990234375, 0.0]])
    near, swapped = wanted + torch.tensor([0.0, 0.0078125, 0.0]), wanted[:, [1, 0, 2]]
    assert check(near, wanted, torch.float16, 4) == Agreement(
        differing_guesses=1, largest_difference=0.0078125, allowed_difference=2 * 4 * 2**-10 * 4
    )
    assert check(wanted, wanted, torch.float32, 2) == Agreement(
        differing_guesses=0, largest_difference=0.0, allowed_difference=math.sqrt(2) * EPSILONS[torch.float32] * 2**-21
    )
    for logits, dtype, message in (
        (near, torch.float32, "1 of 2 guesses differ, and a logit differs by 0.0078; rounding explains 1.5e-05"),
        (swapped, torch.bfloat16, "2 of 2 guesses differ, and a logit differs by 1; rounding explains 0.25"),
        (
            wanted * torch.nan,
            torch.float32,
            "1 of 2 guesses differ, and a logit differs by nan; rounding explains 1.5e-05",
        ),
        (wanted[:1], torch.float32, "its logits have shape (1, 3) instead of (2, 3)"),
    ):
        with pytest.raises(MismatchError) as error:
            check(logits, wanted, dtype, 4)
        assert str(error.value) == message


def test_int8_may_change_some_guesses_and_lose_fewer_correct_ones() -> None:
    """Of 150 images, 3 guesses may differ and 2 correct ones be lost."""
    labels = torch.arange(150) % 3
    wanted = torch.eye(3)[labels]
    wanted[3:6] = wanted[3:6].flip(1)  # the checkpoint is wrong here, except for image 4

    def with_guesses(guesses: dict[int, int]) -> torch.Tensor:
        logits = wanted.clone()
        for image, guess in guesses.items():
            logits[image] = torch.eye(3)[guess]
        return logits

    changed = {0: 1, 1: 0, 3: 1}  # the last was wrong and stays wrong
    assert check_int8(with_guesses(changed), wanted, labels) == Agreement(3, 1.0, None, allowed_guesses=3)
    assert check_int8(wanted * 5, wanted, labels) == Agreement(0, 4.0, None, allowed_guesses=3)
    limits = "int8 may change 3 guesses, and lose 2 correct ones"
    for logits, message in (
        (with_guesses({**changed, 5: 1}), f"4 of 150 guesses differ, and 2 fewer are correct; {limits}"),
        (with_guesses({0: 1, 1: 0, 2: 0}), f"3 of 150 guesses differ, and 3 fewer are correct; {limits}"),
        (wanted + torch.tensor([0.0, 0.0, torch.inf]) * wanted, None),
        (wanted[:, :2], "its logits have shape (150, 2) instead of (150, 3)"),
    ):
        with pytest.raises(MismatchError) as error:
            check_int8(logits, wanted, labels)
        assert message is None or str(error.value) == message


def test_a_latency_is_the_median_of_one_image_and_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def network(batch: torch.Tensor) -> torch.Tensor:
        nonlocal now
        calls.append(len(batch))
        now += len(batch) / 16 if len(calls) % 4 else 8.0  # every fourth call is slow
        return batch

    for images, expected in ((1200, Latency(1 / 16, 62.5, 1000)), (3, Latency(1 / 16, 3 / 16, 3))):
        calls: list[int] = []
        monkeypatch.setattr("time.perf_counter", lambda: now)
        assert measure_latency(network, torch.zeros(images, 1)) == expected
        assert calls == [1] * 4 + [min(images, 1000)] * 4


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


@pytest.mark.parametrize(
    ("images", "batches"),
    [(4, [1, 3]), (8, [1, 7]), (9, [1, 7, 1]), (2010, [1, 7, 1000, 1000, 2])],
)
def test_no_batch_is_empty(images: int, batches: list[int]) -> None:
    found: list[int] = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        found.append(len(batch))
        return batch.float()

    assert torch.equal(compute_logits(network, torch.arange(images)), torch.arange(images).float())
    assert found == batches
