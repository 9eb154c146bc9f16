from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mnist_amp.reporting.evaluation_report import WORST, _worst
from mnist_amp.training.metrics import Scored


def test_the_most_confident_mistakes_come_first() -> None:
    count = WORST + 5
    logits = torch.zeros(count, 10)
    logits[:, 3] = torch.arange(count) % 7 + torch.arange(count) / 100
    labels = torch.full((count,), 4)
    labels[6] = 3  # right, and the surest of all but a few
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1).expand(count, 28, 28)
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(images=images))
    worst = _worst(Scored(torch.arange(count), labels, logits), trainer)
    expected = [place for place in logits[:, 3].argsort(descending=True).tolist() if place != 6][:WORST]
    assert [int(mistake.image[0, 0]) for mistake in worst] == expected
    assert all((mistake.digit, mistake.guess) == (4, 3) for mistake in worst)
    assert worst[0].probability == pytest.approx(logits.softmax(dim=1).max().item())
