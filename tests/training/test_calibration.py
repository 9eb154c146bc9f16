"""The temperature of probabilities, and how well they are calibrated."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.image_set import ImageSet
from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from mnist_amp.training import calibration
from mnist_amp.training.calibration import (
    calibration_error,
    fit_temperature,
    held_out,
    reliability,
    score_held_out,
    why_unknown,
)
from mnist_amp.training.metrics import Scored


def scored(probabilities: list[float], correct: list[bool]) -> Scored:
    """Return images of two classes whose guess, always class 0, has these probabilities."""
    odds = torch.tensor(probabilities).double().logit()
    logits = torch.stack([odds, torch.zeros_like(odds)], dim=1)
    return Scored(torch.arange(len(odds)), 1 - torch.tensor(correct).long(), logits)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    """Of images with a probability of 90 %, 90 % are right at the temperature 1."""
    images = scored([0.9] * 1000, [True] * 900 + [False] * 100)
    assert fit_temperature(images.logits * scale, images.labels) == pytest.approx(scale, rel=1e-3)


def test_the_temperature_is_limited() -> None:
    right = scored([0.9] * 200, [True] * 200)
    assert fit_temperature(right.logits, right.labels) == 0.05
    wrong = scored([0.9] * 200, [False] * 200)
    assert fit_temperature(wrong.logits, wrong.labels) == 20.0


def test_few_images_and_overflowed_logits_do_not_count() -> None:
    images = scored([0.9] * 100, [True] * 90 + [False] * 10)
    assert fit_temperature(images.logits[1:], images.labels[1:]) is None
    overflowed = torch.full((50, 2), math.inf)
    logits, labels = torch.cat([images.logits, overflowed]), torch.cat([images.labels, torch.zeros(50).long()])
    assert (
        fit_temperature(logits, labels) == fit_temperature(images.logits, images.labels) == pytest.approx(1, rel=1e-3)
    )


def test_bins_and_their_error() -> None:
    images = scored([0.9] * 10 + [0.7] * 10, [True] * 8 + [False] * 2 + [True] * 6 + [False] * 4)
    below, above = reliability(images)
    assert (below.accuracy, below.images, above.accuracy, above.images) == (0.6, 10, 0.8, 10)
    assert [below.confidence, above.confidence] == pytest.approx([0.7, 0.9])
    assert calibration_error(images) == pytest.approx(0.1, abs=1e-6)
    # at temperature 2 the odds are 3 and 1.53
    low, high = (math.sqrt(odds) / (1 + math.sqrt(odds)) for odds in (7 / 3, 9))
    assert [each.confidence for each in reliability(images, 2.0)] == [pytest.approx(low), pytest.approx(high)]
    assert calibration_error(images, 2.0) == pytest.approx((abs(low - 0.6) + abs(high - 0.8)) / 2, abs=1e-6)


def test_the_validation_images_are_scored_as_by_validate() -> None:
    torch.manual_seed(0)
    data, module = ClassificationDataModule(val_size=150), LitClassifier()
    trainer = Trainer(accelerator="cpu", precision="bf16-mixed", logger=False, enable_progress_bar=False)
    trainer.validate(module, data, verbose=False)
    expected, logged = module.scores.scored(), dict(trainer.callback_metrics)
    found = score_held_out(trainer, module.eval(), data)
    assert found is not None
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.indices, torch.arange(150))
    assert trainer.callback_metrics == logged


def test_which_validation_images_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ClassificationDataModule(val_size=5000)
    assert torch.equal(held_out(data), data.split()[1])
    monkeypatch.setattr(calibration, "MOST_IMAGES", 2000)
    assert torch.equal(held_out(data), data.split()[1][::3])
    assert len(held_out(ClassificationDataModule(val_size=0))) == 0
    monkeypatch.setattr(calibration, "MOST_BYTES", 60_000 * 784 - 1)
    assert len(held_out(data)) == 0
    trainer = Trainer(accelerator="cpu", logger=False)
    for without in (data, LightningDataModule(), None):
        assert score_held_out(trainer, LitClassifier(), without) is None


def test_why_there_is_no_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ClassificationDataModule(val_size=9)
    assert why_unknown(data) == "9 validation images; 100 are needed"
    data.val_is_unseen = False
    assert why_unknown(data) == "the network may have been trained on the validation images"
    for without in (ClassificationDataModule(val_size=0), LightningDataModule()):
        assert why_unknown(without) == "no validation images"
    data = ClassificationDataModule(val_size=100)
    assert why_unknown(data) == "fewer than 100 validation images could be scored"
    monkeypatch.setattr(calibration, "MOST_BYTES", 60_000 * 784 - 1)
    assert why_unknown(data) == "the training images take more than 256 MB"


def test_training_images_that_can_not_be_read_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*, train: bool) -> ImageSet:
        raise RequestError("train-images is damaged.")

    data = ClassificationDataModule()
    monkeypatch.setattr(data.source, "load", refuse)
    trainer = Trainer(accelerator="cpu", logger=False)
    capsys.readouterr()
    assert score_held_out(trainer, LitClassifier(), data) is None
    assert capsys.readouterr().err == (
        "mnist-amp: warning: there is no temperature, because the training images can't be read: "
        "train-images is damaged.\n"
    )


def test_a_folder_is_read_during_a_test(tmp_path: Path) -> None:
    for part, name in itertools.product(("train", "test"), "ab"):
        (tmp_path / part / name).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (28, 28), 10 * index).save(tmp_path / part / name / f"{index}.png")
    data, module = (
        ClassificationDataModule(folder=str(tmp_path), val_size=10, batch_size=8),
        LitClassifier(num_classes=2),
    )
    trainer = Trainer(accelerator="cpu", logger=False)
    with torch.inference_mode():  # as Lightning evaluates
        found = score_held_out(trainer, module.eval(), data)
    assert found is not None
    assert found.logits.shape == (10, 2)
