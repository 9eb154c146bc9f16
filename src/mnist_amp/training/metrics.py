"""Metrics of training and evaluation. None of them makes the host wait for the device while batches run."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

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


class LossAndAccuracy(NamedTuple):
    """Mean cross-entropy (in nats) and accuracy (0 to 1) of some images."""

    loss: float
    accuracy: float


class EpochMeans:
    """The loss and the accuracy of each training step of an epoch, for the means of the epoch.

    Steps are counted in groups of `GROUP`, because counting a step costs half as much as training it. The result does
    not depend on the groups: it has a row for each step, and `epoch_means` sums the rows exactly.

    >>> means = EpochMeans()
    >>> means.update(torch.tensor(0.5), torch.tensor([[2.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1]))
    True
    >>> means.rows()
    tensor([[0.5000, 1.0000, 2.0000]])
    >>> epoch_means(means.rows())
    LossAndAccuracy(loss=0.5, accuracy=0.5)

    Attributes:
        images: the number of images of each step of this epoch.
        seen: the number of images in all epochs.
        evaluations: how often the loss of the newest step was computed, see `one_step`.
    """

    GROUP = 16

    def __init__(self) -> None:
        self.seen = self.evaluations = 0
        self._within_step = False
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # steps that are not counted yet
        self.counted: list[Tensor] = []  # (steps, 2): mean loss, correct guesses
        self.images: list[int] = []

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Add one step in this context, however often `update` is called: the first call counts.

        An optimizer such as LBFGS computes the loss several times in a step, each time with other weights. The first
        loss is that of the weights before the step, as with every other optimizer; `LBFGS.step` returns it as well.
        """
        self.evaluations, self._within_step = 0, True
        try:
            yield
        finally:
            self._within_step = False

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> bool:
        """Add a step: its mean loss (), logits (N, classes) and labels (N,).

        Returns:
            False if it was not added, because the step has been added already, see `one_step`.
        """
        self.evaluations += 1
        if self._within_step and self.evaluations > 1:
            return False
        images = labels.shape[0]
        if self.waiting and images != self.images[-1]:
            self._count()
        self.waiting.append((loss, logits, labels))
        self.images.append(images)
        self.seen += images
        if len(self.waiting) == self.GROUP:
            self._count()
        return True

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add several steps: their mean losses (S,), logits (S, N, classes) and labels (S, N)."""
        self._count()
        self.images += [labels.shape[1]] * labels.shape[0]
        self.seen += labels.numel()
        self._append(losses, logits, labels)

    def rows(self) -> Tensor:
        """Return a row for each step of the epoch so far, (steps, 3) float32: mean loss, correct guesses, images.

        Checkpoints hold these rows.
        """
        self._count()
        counted = torch.cat(self.counted) if self.counted else torch.zeros(0, 2)
        images = torch.tensor(self.images, dtype=torch.float32, device=counted.device)
        return torch.column_stack((counted, images))

    def losses(self) -> Tensor:
        """Return the mean loss of each step of the epoch so far, (steps,) float32."""
        return self.rows()[:, 0]

    def load(self, rows: Tensor) -> None:
        """Continue an epoch with the rows (steps, 3) of a checkpoint."""
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


def epoch_means(rows: Tensor) -> LossAndAccuracy:
    """Return the means over all images of the steps.

    Args:
        rows: (..., 3), as `EpochMeans.rows` returns them; those of several processes in any order.
    """
    loss, correct, images = rows.reshape(-1, 3).double().cpu().unbind(dim=1)
    total = float(images.sum())
    return LossAndAccuracy(math.fsum((loss * images).tolist()) / total, float(correct.sum()) / total)


class Scored(NamedTuple):
    """Images with the logits of a model: indices in the data set (N,), labels (N,), logits (N, classes) float32."""

    indices: Tensor
    labels: Tensor
    logits: Tensor


class Scores(Metric):
    """The logits of all images of an evaluation, from all processes, in the order of the data set.

    >>> scores = Scores()
    >>> scores.update(torch.tensor([1]), torch.tensor([7]), torch.ones(1, 10))
    >>> scores.update(torch.tensor([0]), torch.tensor([3]), torch.zeros(1, 10))
    >>> scores.compute().labels
    tensor([3, 7])
    """

    indices: list[Tensor]
    labels: list[Tensor]
    logits: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("indices", "labels", "logits"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, indices: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Add a batch: indices in the data set (N,), labels (N,) and logits (N, classes); N may be 0."""
        self.indices.append(indices)
        self.labels.append(labels)
        self.logits.append(logits.float())

    def compute(self) -> Scored:
        """Return all images on the CPU, where metrics are bit-for-bit reproducible."""
        indices, labels, logits = (dim_zero_cat(state).cpu() for state in (self.indices, self.labels, self.logits))
        order = indices.argsort()
        return Scored(indices[order], labels[order], logits[order])

    def scored(self) -> Scored:
        """Return what `compute` returns. torchmetrics turns the indices and labels of a single image into scalars."""
        indices, labels, logits = self.compute()
        return Scored(indices.reshape(-1), labels.reshape(-1), logits.reshape(indices.numel(), -1))


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of a class: precision, recall and F1 are 0 to 1, and 0 where there are no images to divide by.

    Attributes:
        index: the label of the class.
        class_name: its name.
        precision: of the images with this guess, the share that is of this class.
        recall: of the images of this class, the share with this guess.
        f1: the harmonic mean of precision and recall.
        images: the number of images of this class.
    """

    index: int
    class_name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class EvaluationMetrics:
    """The metrics of an evaluation, as plain values. `metrics.json` has a key for each field.

    Attributes:
        images: the number of images.
        loss: mean cross-entropy, in nats.
        accuracy: 0 to 1.
        per_class: the metrics of each class.
        confusion_matrix: the number of images by true class (row) and guess (column).
    """

    images: int
    loss: float
    accuracy: float
    per_class: list[ClassMetrics]
    confusion_matrix: list[list[int]]


def loss_and_accuracy(scored: Scored) -> LossAndAccuracy:
    """Return the means over all images; they do not depend on how many processes have scored them."""
    losses = F.cross_entropy(scored.logits.double(), scored.labels, reduction="none")
    correct = (scored.logits.argmax(dim=1) == scored.labels).sum().item()
    return LossAndAccuracy(math.fsum(losses.tolist()) / len(losses), correct / len(losses))


def evaluation_metrics(scored: Scored, classes: Sequence[str]) -> EvaluationMetrics:
    """Return all metrics of an evaluation.

    Args:
        scored: the logits of images.
        classes: the name of each class, in the order of the labels. A class may have no images.
    """
    count = len(classes)
    guesses, labels = scored.logits.argmax(dim=1), scored.labels
    columns = (
        multiclass_precision(guesses, labels, num_classes=count, average=None),
        multiclass_recall(guesses, labels, num_classes=count, average=None),
        multiclass_f1_score(guesses, labels, num_classes=count, average=None),
        labels.bincount(minlength=count),
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return EvaluationMetrics(
        images=len(labels),
        **loss_and_accuracy(scored)._asdict(),
        per_class=[
            ClassMetrics(index, name, *row) for index, (name, row) in enumerate(zip(classes, rows, strict=True))
        ],
        confusion_matrix=multiclass_confusion_matrix(guesses, labels, num_classes=count).tolist(),
    )
