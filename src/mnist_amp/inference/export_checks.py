"""The checks of exported files: their logits for the test images, compared with the checkpoint's.

A logit may differ from the checkpoint's by `EPSILONS` machine epsilons of the dtype times the largest logit, times the
square root of the number of layers with a matrix of weights, because the rounding errors of layers are independent. In
half precision, each weight and each value is rounded once, up or down, by at most half an epsilon of itself. In
float32, the sums of products are rounded, and their order differs between runtimes: the error is half an epsilon times
the square root of the number of products, which is 16 epsilons for 1,024 of them. Measured: at most 3.4 epsilons in
float32 and 1.1 in half precision, with networks of 2 to 21 layers; docs/export.md names them.

A guess can differ only if two of the checkpoint's logits differ by less than twice the allowed difference.

In int8, values outside the range of the calibration are cut, so no such bound holds. Instead, 2 % of the guesses may
differ, and 1 point of accuracy may be lost. Measured: at most 0.9 % and 0.1 points, with networks of 2 to 19 layers.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mnist_amp.inference.export_results import Accuracy, Agreement, Latency

EPSILONS = {torch.float32: 16, torch.float16: 4, torch.bfloat16: 4}  # times the root of the number of layers
FIRST_BATCHES = [1, 7]  # images in them; a file must take any number of images
BATCH_SIZE = 1000  # images in each of the other batches
INT8_GUESSES, INT8_LOSS = 0.02, 0.01  # shares of the images
LEAST_CALLS, LEAST_SECONDS = 3, 0.1  # of a latency


class MismatchError(ValueError):
    """A file does not compute what the checkpoint computes; the message tells the difference."""


def compute_logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, C, H, W) uint8, computed in batches of several sizes."""
    edges = [0, *itertools.accumulate(FIRST_BATCHES), *range(sum(FIRST_BATCHES) + BATCH_SIZE, len(images), BATCH_SIZE)]
    edges = [edge for edge in edges if edge < len(images)]
    batches = [images[start:end] for start, end in itertools.pairwise([*edges, len(images)])]
    with torch.no_grad():
        return torch.cat([network(batch) for batch in batches])


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Return how many images are classified correctly, from logits (N, classes) and labels (N,)."""
    return Accuracy(int((logits.argmax(dim=1) == labels).sum()), len(labels))


def count_layers(network: nn.Module) -> int:
    """Return the number of layers that have a matrix of weights; at least 1."""
    return max(sum(parameter.ndim > 1 for parameter in network.parameters()), 1)


def check(logits: Tensor, wanted: Tensor, dtype: torch.dtype, layers: int) -> Agreement:
    """Compare a file's logits (N, classes) with the checkpoint's.

    Args:
        logits: of the file.
        wanted: of the checkpoint.
        dtype: of the file's weights.
        layers: of the network, see `count_layers`.

    Raises:
        MismatchError: they differ by more than rounding to `dtype` explains.
    """
    _check_shape(logits, wanted)
    differing, largest = _differences(logits, wanted)
    allowed = math.sqrt(layers) * EPSILONS[dtype] * torch.finfo(dtype).eps * wanted.abs().max().item()
    if not largest <= allowed:  # written so that nan is refused
        raise MismatchError(
            f"{differing:,} of {len(wanted):,} guesses differ, and a logit differs by {largest:.2g}; rounding explains "
            f"{allowed:.2g}"
        )
    return Agreement(differing, largest, allowed)


def check_int8(logits: Tensor, wanted: Tensor, labels: Tensor) -> Agreement:
    """Compare the guesses of an int8 file with the checkpoint's.

    Args:
        logits: (N, classes) of the file.
        wanted: of the checkpoint.
        labels: the classes (N,).

    Raises:
        MismatchError: more guesses differ, or fewer are correct, than int8 may change.
    """
    _check_shape(logits, wanted)
    differing, largest = _differences(logits, wanted)
    lost = accuracy(wanted, labels).correct - accuracy(logits, labels).correct
    allowed, allowed_loss = (math.ceil(share * len(labels)) for share in (INT8_GUESSES, INT8_LOSS))
    if differing > allowed or lost > allowed_loss or not math.isfinite(largest):
        raise MismatchError(
            f"{differing:,} of {len(wanted):,} guesses differ, and {lost:,} fewer are correct; int8 may change "
            f"{allowed:,} guesses, and lose {allowed_loss:,} correct ones"
        )
    return Agreement(differing, largest, allowed_difference=None, allowed_guesses=allowed)


def measure_latency(network: Callable[[Tensor], Tensor], images: Tensor) -> Latency:
    """Measure the time of one image and of a batch, of images (N, C, H, W)."""
    bulk = images[:BATCH_SIZE]
    with torch.no_grad():
        return Latency(_median_time(network, images[:1]), _median_time(network, bulk), len(bulk))


def _median_time(network: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    network(batch)  # the first call may be slower
    seconds: list[float] = []
    while len(seconds) < LEAST_CALLS or sum(seconds) < LEAST_SECONDS:
        start = time.perf_counter()
        network(batch)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def check_exact(logits: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Compare the logits (N, classes) of a file that torch computes with those of the network that was exported.

    They may differ in the last bit, because the memory layout can change the order of a sum.

    Raises:
        MismatchError: they differ by more.
    """
    differing, largest = _differences(logits, wanted)
    if differing or not largest <= torch.finfo(dtype).eps * wanted.abs().max().item():
        raise MismatchError(
            f"{differing:,} guesses differ from those of the network that it was exported from, and a logit differs by "
            f"{largest:.2g}"
        )


def _check_shape(logits: Tensor, wanted: Tensor) -> None:
    if logits.shape != wanted.shape:
        raise MismatchError(f"its logits have shape {tuple(logits.shape)} instead of {tuple(wanted.shape)}")


def _differences(logits: Tensor, wanted: Tensor) -> tuple[int, float]:
    """Return the number of guesses that differ, and the largest difference of a logit."""
    differing = int((logits.argmax(dim=1) != wanted.argmax(dim=1)).sum())
    return differing, (logits - wanted).abs().max().item()
