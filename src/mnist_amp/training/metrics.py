"""What is measured of the model's answers, with no device synchronisation while batches run."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)
from torchmetrics.utilities import dim_zero_cat


class EpochMeans:
    """Mean loss and accuracy over the images that an epoch has trained on.

    What a step adds is put aside and counted for several steps at once, as to count costs half as much as to train. How
    the steps are grouped makes no difference to the figures: a row a step is kept, and summed exactly.
    """

    GROUP = 16  # steps counted at once

    def __init__(self) -> None:
        self.seen = 0  # images, in all epochs
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.counted: list[Tensor] = []  # (steps, 2): mean loss, images that were guessed right
        self.images: list[int] = []  # of each step

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a step: its mean loss (), logits (N, 10) and digits (N,)."""
        if self.waiting and labels.shape != self.waiting[0][2].shape:
            self._count()
        self.waiting.append((loss, logits, labels))
        self.images.append(labels.shape[0])
        self.seen += labels.shape[0]
        if len(self.waiting) == self.GROUP:
            self._count()

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add several steps: their mean losses (S,), logits (S, N, 10) and digits (S, N)."""
        self._count()
        self.images += [labels.shape[1]] * labels.shape[0]
        self.seen += labels.numel()
        self._append(losses, logits, labels)

    def rows(self) -> Tensor:
        """Return a row for each step so far, (steps, 3) float32: mean loss, images guessed right, images."""
        self._count()
        counted = torch.cat(self.counted) if self.counted else torch.zeros(0, 2)
        images = torch.tensor(self.images, dtype=torch.float32, device=counted.device)
        return torch.column_stack((counted, images))

    def load(self, rows: Tensor) -> None:
        """Go on from the rows of a checkpoint."""
        self.reset()
        self.counted, self.images = [rows[:, :2]], [int(count) for count in rows[:, 2]]

    def _count(self) -> None:
        if not self.waiting:
            return
        self._append(*map(torch.stack, zip(*self.waiting, strict=True)))
        self.waiting = []

    def _append(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        correct = (logits.argmax(dim=2) == labels).sum(dim=1)
        self.counted.append(torch.column_stack((losses.float(), correct.float())))


def epoch_means(rows: Tensor) -> dict[str, float]:
    """Return mean loss and accuracy (0 to 1) of steps, (..., 3), the same whichever process took which step."""
    loss, correct, images = rows.reshape(-1, 3).double().cpu().unbind(dim=1)
    total = float(images.sum())
    return {"loss": math.fsum((loss * images).tolist()) / total, "accuracy": float(correct.sum()) / total}


class Scored(NamedTuple):
    """Images as the model scored them, by their place in the set: indices (N,), digits (N,), logits (N, 10) float32."""

    indices: Tensor
    labels: Tensor
    logits: Tensor


class Scores(Metric):
    """The logits of every image of an evaluation, gathered from all processes and put in the order of the set."""

    indices: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("indices", "labels", "logits"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, indices: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Keep a batch: indices in the set (N,), digits (N,) and logits (N, 10); N may be 0."""
        self.indices.append(indices)
        self.labels.append(labels)
        self.logits.append(logits.float())

    def compute(self) -> Scored:
        # on the CPU, where what follows is bit-for-bit reproducible
        indices, labels, logits = (dim_zero_cat(state).cpu() for state in (self.indices, self.labels, self.logits))
        order = indices.argsort()
        return Scored(indices[order], labels[order], logits[order])


def loss_and_accuracy(scored: Scored) -> dict[str, float]:
    """Return mean cross-entropy (in nats) and accuracy (0 to 1), the same however the images were sharded."""
    losses = F.cross_entropy(scored.logits.double(), scored.labels, reduction="none")
    correct = (scored.logits.argmax(dim=1) == scored.labels).sum().item()
    return {"loss": math.fsum(losses.tolist()) / len(losses), "accuracy": correct / len(losses)}


def evaluation_metrics(scored: Scored) -> dict[str, Any]:
    """Return what a report shows, as plain values: loss, accuracy, figures by digit (0 to 1), confusion matrix."""
    guesses, labels = scored.logits.argmax(dim=1), scored.labels
    precision = multiclass_precision(guesses, labels, num_classes=10, average=None)
    recall = multiclass_recall(guesses, labels, num_classes=10, average=None)
    f1 = multiclass_f1_score(guesses, labels, num_classes=10, average=None)
    return {
        "images": len(labels),
        **loss_and_accuracy(scored),
        "per_digit": [
            {"digit": digit, "precision": p, "recall": r, "f1": f, "images": n}
            for digit, (p, r, f, n) in enumerate(
                zip(
                    precision.tolist(),
                    recall.tolist(),
                    f1.tolist(),
                    labels.bincount(minlength=10).tolist(),
                    strict=True,
                )
            )
        ],
        "confusion_matrix": multiclass_confusion_matrix(guesses, labels, num_classes=10).tolist(),
    }
