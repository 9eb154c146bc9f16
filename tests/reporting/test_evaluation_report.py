"""The report of `validate` and `test`: its text, and the files that the callback writes."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from mnist_amp.errors import RunError
from mnist_amp.reporting.evaluation_report import (
    FILES,
    Evaluation,
    EvaluationReport,
    describe,
    most_confident_mistakes,
)
from mnist_amp.reporting.plots import MAX_MISTAKES
from mnist_amp.training.metrics import ClassMetrics, Scored
from mnist_amp.training.precision import device_name, versions
from tests.conftest import files
from tests.reporting.scoring import Images, Model

EVALUATION = Evaluation(
    command="test",
    checkpoint="run/checkpoints/best.ckpt",
    epochs=5,
    step=4300,
    device="CPU",
    precision="32-true",
    versions={"torch": "2.15.0"},
    images=10_000,
    loss=0.08344,
    accuracy=0.9745,
    per_class=[ClassMetrics(0, "0", 0.98765, 1.0, 0.5, 1135)],
    confusion_matrix=[[1135]],
    temperature=0.9512,
    calibration_error=0.01234,
    calibration_error_at_temperature=0.00432,
)


def test_text() -> None:
    assert (
        describe(EVALUATION, "run/test_best")
        == """
class  precision  recall      F1  images
    0     0.9877  1.0000  0.5000   1,135

loss      0.0834 (mean cross-entropy)
accuracy  97.45% of 10,000 images
ECE       1.23% (expected calibration error); 0.43% at temperature 0.951
files     run/test_best/ (metrics.json, confusion_matrix.png, misclassified.png, reliability.png)"""
    )
    unknown = dataclasses.replace(EVALUATION, temperature=None, calibration_error_at_temperature=None)
    assert "\nECE       1.23% (expected calibration error)\n" in describe(unknown, "run/test_best")


def test_of_many_classes_the_worst_are_printed() -> None:
    rows = [ClassMetrics(index, f"class {index}", 0.5, 0.5, 0.9 - index / 100, 7) for index in range(19)]
    rows.append(ClassMetrics(19, "a class that has a name of 40 characters", 0.5, 0.5, 0.0, 1234))
    evaluation = dataclasses.replace(EVALUATION, per_class=rows)
    lines = describe(evaluation, "run/test_best").split("\n")
    assert lines[1:4] == [
        "class                           precision  recall      F1  images",
        "a class that h...40 characters     0.5000  0.5000  0.0000   1,234",
        "class 18                           0.5000  0.5000  0.7200       7",
    ]
    assert lines[13:15] == [
        "class 8                            0.5000  0.5000  0.8200       7",
        "The classes with the lowest F1; 8 more are in metrics.json.",
    ]
    empty = [ClassMetrics(20 + index, "crane", 0.0, 0.0, 0.0, 0) for index in range(980)]
    lines = describe(dataclasses.replace(EVALUATION, per_class=[*rows, *empty]), "run/test_best").split("\n")
    assert lines[13:15] == [
        "class 8                            0.5000  0.5000  0.8200       7",
        "The classes with the lowest F1 of those with images; 988 more are in metrics.json.",
    ]


def test_the_keys_of_metrics_json() -> None:
    assert json.loads(EVALUATION.to_json()) == {
        "command": "test",
        "checkpoint": "run/checkpoints/best.ckpt",
        "epochs": 5,
        "step": 4300,
        "device": "CPU",
        "precision": "32-true",
        "versions": {"torch": "2.15.0"},
        "images": 10_000,
        "loss": 0.08344,
        "accuracy": 0.9745,
        "per_class": [{"index": 0, "class_name": "0", "precision": 0.98765, "recall": 1.0, "f1": 0.5, "images": 1135}],
        "confusion_matrix": [[1135]],
        "temperature": 0.9512,
        "calibration_error": 0.01234,
        "calibration_error_at_temperature": 0.00432,
    }
    assert EVALUATION.to_json().startswith('{\n  "command": "test",\n')
    assert EVALUATION.to_json().endswith("\n}\n")


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_evaluation_leaves_metrics_and_plots(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "report"
    report = EvaluationReport(folder, command=command, checkpoint="best.ckpt", epochs=5, step=4300)
    trainer = Trainer(accelerator="cpu", callbacks=[report], logger=False, enable_progress_bar=False)
    capsys.readouterr()
    getattr(trainer, command)(Model(), datamodule=Images(), verbose=False)
    assert files(folder) == set(FILES)
    metrics = json.loads((folder / "metrics.json").read_text())
    loss = (2 * math.log1p(9 * math.exp(-5)) + math.log(9 + math.exp(2)) + math.log(9 + math.exp(4))) / 4
    assert metrics.pop("loss") == pytest.approx(loss, abs=1e-12)
    rows, matrix = metrics.pop("per_class"), metrics.pop("confusion_matrix")
    strong, weak, wrong = (math.exp(each) / (math.exp(each) + 9) for each in (5, 2, 4))
    error = (2 * (1 - strong) + weak + wrong) / 4  # in three bins; the confident ones are half right
    assert metrics.pop("calibration_error") == pytest.approx(error, abs=1e-6)
    assert rows[1] == {
        "index": 1,
        "class_name": "1",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "images": 2,
    }
    assert [row["images"] for row in rows] == [0, 2, 0, 1, 1, 0, 0, 0, 0, 0]
    assert {(row, column): matrix[row][column] for row in range(10) for column in range(10) if matrix[row][column]} == {
        (1, 1): 1,
        (1, 7): 1,
        (3, 3): 1,
        (4, 9): 1,
    }
    assert metrics == {
        "command": command,
        "checkpoint": "best.ckpt",
        "epochs": 5,
        "step": 4300,
        "device": device_name(trainer),
        "precision": "32-true",
        "versions": versions(),
        "images": 4,
        "accuracy": 0.5,
        "temperature": None,  # these are too few images
        "calibration_error_at_temperature": None,
    }
    sizes = {name: Image.open(folder / name).size for name in FILES[1:]}
    assert sizes == {
        "confusion_matrix.png": (720, 672),
        "misclassified.png": (900, 960),
        "reliability.png": (672, 672),
    }
    assert capsys.readouterr().out.endswith(
        f"""
    1     1.0000  0.5000  0.6667       2
    2     0.0000  0.0000  0.0000       0
    3     1.0000  1.0000  1.0000       1
    4     0.0000  0.0000  0.0000       1
    5     0.0000  0.0000  0.0000       0
    6     0.0000  0.0000  0.0000       0
    7     0.0000  0.0000  0.0000       0
    8     0.0000  0.0000  0.0000       0
    9     0.0000  0.0000  0.0000       0

loss      {loss:.4f} (mean cross-entropy)
accuracy  50.00% of 4 images
ECE       {error:.2%} (expected calibration error)
files     {folder}/ (metrics.json, confusion_matrix.png, misclassified.png, reliability.png)
"""
    )


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 28, 28)])
def test_the_most_confident_mistakes_come_first(shape: tuple[int, ...]) -> None:
    count = MAX_MISTAKES + 5
    logits = torch.zeros(count, 10)
    logits[:, 3] = torch.arange(count) % 7 + torch.arange(count) / 100
    labels = torch.full((count,), 4)
    labels[6] = 3  # correct, with one of the highest probabilities
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, *[1] * len(shape)).expand(count, *shape)
    scored = Scored(torch.arange(count), labels, logits)
    mistakes = most_confident_mistakes(scored, images, tuple("0123456789"))
    assert mistakes[0].image.shape == ((28, 28, 3) if shape[0] == 3 else (28, 28))
    expected = [row for row in logits[:, 3].argsort(descending=True).tolist() if row != 6][:MAX_MISTAKES]
    assert [int(mistake.image[0, 0].max()) for mistake in mistakes] == expected
    assert all((mistake.true_class, mistake.predicted_class) == ("4", "3") for mistake in mistakes)
    assert mistakes[0].probability == pytest.approx(logits.softmax(dim=1).max().item())


@pytest.mark.parametrize("command", ["validate", "test"])
def test_the_metrics_are_printed_if_the_files_can_not_be_written(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "report"  # which can't be made
    report = EvaluationReport(folder, command=command, checkpoint="best.ckpt", epochs=5, step=4300)
    trainer = Trainer(accelerator="cpu", callbacks=[report], logger=False, enable_progress_bar=False)
    with pytest.raises(RunError, match=rf"^{folder}/metrics.json can't be written: Not a directory "):
        getattr(trainer, command)(Model(), datamodule=Images(), verbose=False)
    assert capsys.readouterr().out.rpartition("\nECE")[0].endswith("\naccuracy  50.00% of 4 images")
