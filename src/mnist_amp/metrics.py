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


class EpochMeans(Metric):
    """Mean loss and accuracy over the images that an epoch has trained on, all processes together."""

    loss: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("correct", "count"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss (), logits (N, 10) and digits (N,)."""
        # not in place: bf16-true and 16-true cast the state, which is 0 then, and half a precision can't hold the sum
        self.loss = self.loss + loss.float() * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        return {"loss": self.loss / self.count, "accuracy": self.correct / self.count}


class Scored(NamedTuple):
    """Images as the model scored them, by their place in the set: places (N,), digits (N,), logits (N, 10) float32."""

    places: Tensor
    labels: Tensor
    logits: Tensor


class Scores(Metric):
    """The logits of every image of an evaluation, gathered from all processes and put in the order of the set."""

    places: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("places", "labels", "logits"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, places: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Keep a batch: places in the set (N,), digits (N,) and logits (N, 10); N may be 0."""
        self.places.append(places)
        self.labels.append(labels)
        self.logits.append(logits.float())

    def compute(self) -> Scored:
        # on the CPU, where what follows is bit-for-bit reproducible
        places, labels, logits = (dim_zero_cat(state).cpu() for state in (self.places, self.labels, self.logits))
        order = places.argsort()
        return Scored(places[order], labels[order], logits[order])


def loss_and_accuracy(scored: Scored) -> dict[str, float]:
    """Return mean cross-entropy (in nats) and accuracy (0 to 1), the same however the images were sharded."""
    losses = F.cross_entropy(scored.logits.double(), scored.labels, reduction="none")
    correct = (scored.logits.argmax(dim=1) == scored.labels).sum().item()
    return {"loss": math.fsum(losses.tolist()) / len(losses), "accuracy": correct / len(losses)}


def figures(scored: Scored) -> dict[str, Any]:
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
