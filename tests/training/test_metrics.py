import dataclasses
import doctest
import math

import pytest
import torch

from mnist_amp.training import metrics
from mnist_amp.training.metrics import (
    ClassMetrics,
    EpochMeans,
    LossAndAccuracy,
    Scored,
    Scores,
    epoch_means,
    evaluation_metrics,
    loss_and_accuracy,
)


def logits(*guesses: int) -> torch.Tensor:
    """Return logits that give each guess probability 1/2 and the nine others 1/18 each."""
    return torch.nn.functional.one_hot(torch.tensor(guesses), 10).float() * math.log(9)


def test_epoch_means_weigh_by_batch_size() -> None:
    means = EpochMeans()
    means.update(torch.tensor(1.0), logits(0, 1, 2), torch.tensor([0, 1, 9]))
    means.update(torch.tensor(5.0), logits(3), torch.tensor([3]))
    assert means.rows().tolist() == [[1, 2, 3], [5, 1, 1]]
    assert means.losses().tolist() == [1, 5]
    assert epoch_means(means.rows()) == LossAndAccuracy(loss=2.0, accuracy=0.75)


def test_scores_are_in_the_order_of_the_data_set() -> None:
    scores = Scores()
    scores.update(torch.tensor([4, 1]), torch.tensor([7, 8]), logits(7, 1))
    scores.update(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), torch.zeros(0, 10))
    scores.update(torch.tensor([0]), torch.tensor([9]), logits(9).bfloat16())
    scored = scores.compute()
    assert scored.indices.tolist() == [0, 1, 4]
    assert scored.labels.tolist() == [9, 8, 7]
    assert scored.logits.argmax(dim=1).tolist() == [9, 1, 7]
    assert scored.logits.dtype == torch.float32


SCORED = Scored(torch.arange(4), torch.tensor([0, 0, 1, 2]), logits(0, 1, 1, 2))


def test_loss_and_accuracy() -> None:
    loss = (3 * math.log(2) + math.log(18)) / 4
    assert loss_and_accuracy(SCORED)._asdict() == {"loss": pytest.approx(loss, rel=1e-7), "accuracy": 0.75}


def test_metrics_by_class() -> None:
    result = dataclasses.asdict(evaluation_metrics(SCORED, tuple("0123456789")))
    assert list(result) == ["images", "loss", "accuracy", "per_class", "confusion_matrix"]
    assert result["images"] == 4
    assert result["accuracy"] == 0.75
    assert result["per_class"][:3] == [
        {"index": 0, "class_name": "0", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "images": 2},
        {"index": 1, "class_name": "1", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "images": 1},
        {"index": 2, "class_name": "2", "precision": 1.0, "recall": 1.0, "f1": 1.0, "images": 1},
    ]
    assert [row[:3] for row in result["confusion_matrix"][:3]] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert sum(map(sum, result["confusion_matrix"])) == 4


@pytest.mark.parametrize("count", [2, 100, 1000])
def test_metrics_of_any_number_of_classes(count: int) -> None:
    """Only the first two classes have images, and no metric is nan."""
    scored = Scored(torch.arange(3), torch.tensor([0, 1, 1]), torch.eye(count)[[0, 1, 0]])
    result = evaluation_metrics(scored, [f"class {index}" for index in range(count)])
    assert [row.images for row in result.per_class] == [1, 2] + [0] * (count - 2)
    f1 = result.per_class[0].f1
    assert f1 == pytest.approx(2 / 3)
    assert result.per_class[0] == ClassMetrics(0, "class 0", 0.5, 1.0, f1, 1)
    assert result.per_class[1] == ClassMetrics(1, "class 1", 1.0, 0.5, f1, 2)
    assert result.per_class[2:] == [ClassMetrics(i, f"class {i}", 0.0, 0.0, 0.0, 0) for i in range(2, count)]
    assert result.confusion_matrix[1] == [1, 1] + [0] * (count - 2)


def test_examples() -> None:
    assert doctest.testmod(metrics).failed == 0
