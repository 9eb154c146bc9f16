from typing import Any

import pytest

from mnist_amp.reporting.text import evaluation, facts, fit_summary
from mnist_amp.wording import counted

RUN: dict[str, Any] = {
    "epochs": 4,
    "images": 275_000,
    "seconds": 10.0,
    "data_seconds": 0.25,
    "replayed": None,
    "device_memory": None,
    "folder": "lightning_logs/version_0",
    "files": ["model.pth", "checkpoints/"],
}


def test_facts_are_in_two_columns() -> None:
    assert facts({"device": "CPU", "seed": "42"}) == "device  CPU\nseed    42"


def test_fit_summary() -> None:
    summary = fit_summary("validation", 0.9718, next_steps=["mnist-amp test", "and so on"], **RUN)
    assert (
        summary
        == """
accuracy  97.18% on the validation images, the best after 4 epochs
time      10.0 s, 27,500 samples/s (training, validation and checkpoints; 2.5% of it waiting for data)
files     lightning_logs/version_0/ (model.pth, checkpoints/)
next      mnist-amp test
          and so on"""
    )


def test_fit_summary_without_validation() -> None:
    summary = fit_summary("training", 0.96, next_steps=["mnist-amp test"], **RUN)
    assert "accuracy  96.00% on the training images, with no validation, after 4 epochs\n" in summary


def test_fit_summary_without_checkpoints() -> None:
    nothing = {**RUN, "epochs": None, "seconds": 0.0, "images": 0, "data_seconds": None}
    summary = fit_summary("training", None, next_steps=[], **nothing)
    assert summary.startswith(
        "\naccuracy  not known\ntime      0.0 s, 0 samples/s (training, validation and checkpoints)"
    )


@pytest.mark.parametrize(
    ("replayed", "line"),
    [
        (
            (4600, 4690, None),
            "4,600 of 4,690 optimizer steps replayed as CUDA graphs, the others before the capture",
        ),
        ((4690, 4690, None), "4,690 of 4,690 optimizer steps replayed as CUDA graphs"),
        (
            (0, 4690, "Spy looks into each step"),
            "0 of 4,690 optimizer steps replayed as CUDA graphs, all one after the other, as Spy looks into each step",
        ),
    ],
)
def test_fit_summary_says_what_was_captured(replayed: tuple[int, int, str | None], line: str) -> None:
    summary = fit_summary("training", 0.96, next_steps=["mnist-amp test", "and so on"], **{**RUN, "replayed": replayed})
    assert (
        summary
        == f"""
accuracy   96.00% on the training images, with no validation, after 4 epochs
time       10.0 s, 27,500 samples/s (training, validation and checkpoints; 2.5% of it waiting for data)
execution  {line}
files      lightning_logs/version_0/ (model.pth, checkpoints/)
next       mnist-amp test
           and so on"""
    )


def test_counted() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
    assert [counted(n, "batch") for n in (1, 2)] == ["1 batch", "2 batches"]


def test_evaluation() -> None:
    digit = {"digit": 0, "precision": 0.98765, "recall": 1.0, "f1": 0.5, "images": 1135}
    record = {"loss": 0.08344, "accuracy": 0.9745, "images": 10_000, "per_digit": [digit]}
    assert (
        evaluation(record, "run/test_best")
        == """
digit  precision  recall      F1  images
    0     0.9877  1.0000  0.5000   1,135

loss      0.0834
accuracy  97.45% of 10,000 images
files     run/test_best/ (metrics.json, confusion_matrix.png, misclassified.png)"""
    )
