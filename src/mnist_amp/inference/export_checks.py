"""The checks of exported files: their logits for the test images, compared with the checkpoint's.

A logit may differ from the checkpoint's by `EPSILONS` machine epsilons of the dtype times the largest logit. In half
precision, each weight and each value is rounded once, up or down, by at most half an epsilon of itself. In float32, the
sums are rounded: those of 784 products, and then those of one product for each hidden unit. Their order differs between
runtimes. The rounding error is half an epsilon times the square root of the number of products, which is 35 epsilons at
width 4096. A guess can differ only if two of the checkpoint's logits differ by less than twice the allowed difference.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mnist_amp.inference.export_results import Accuracy, Agreement

EPSILONS = {torch.float32: 32, torch.float16: 4, torch.bfloat16: 4}
FIRST_BATCHES = [1, 7]  # images in them; a file must take any number of images
BATCH_SIZE = 1000  # images in each of the other batches


class MismatchError(ValueError):
    """A file does not compute what the checkpoint computes; the message tells the difference."""


def compute_logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logits (N, 10) of images (N, 28, 28) uint8, computed in batches of several sizes."""
    first, rest = images[: sum(FIRST_BATCHES)], images[sum(FIRST_BATCHES) :]
    batches = (*torch.split(first, FIRST_BATCHES), *torch.split(rest, BATCH_SIZE))
    with torch.no_grad():
        return torch.cat([network(batch) for batch in batches])


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Return how many images are classified correctly, from logits (N, 10) and digits (N,)."""
    return Accuracy(int((logits.argmax(dim=1) == labels).sum()), len(labels))


def check(logits: Tensor, wanted: Tensor, dtype: torch.dtype) -> Agreement:
    """Compare a file's logits (N, 10) with the checkpoint's.

    Raises:
        MismatchError: they differ by more than rounding to `dtype` explains, or in float32 by a guess.
    """
    if logits.shape != wanted.shape:
        raise MismatchError(f"its logits have shape {tuple(logits.shape)} instead of {tuple(wanted.shape)}")
    differing, largest = _differences(logits, wanted)
    allowed = EPSILONS[dtype] * torch.finfo(dtype).eps * wanted.abs().max().item()
    # written so that nan is refused
    if not largest <= allowed or (dtype == torch.float32 and differing):
        raise MismatchError(
            f"{differing:,} of {len(wanted):,} guesses differ, and a logit differs by {largest:.2g}; rounding explains "
            f"{allowed:.2g}"
        )
    return Agreement(differing, largest, allowed)


def check_exact(logits: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Compare the logits (N, 10) of a file that torch computes with those of the network that it was exported from.

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


def _differences(logits: Tensor, wanted: Tensor) -> tuple[int, float]:
    """Return the number of guesses that differ, and the largest difference of a logit."""
    differing = int((logits.argmax(dim=1) != wanted.argmax(dim=1)).sum())
    return differing, (logits - wanted).abs().max().item()
