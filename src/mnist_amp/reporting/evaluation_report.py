"""The callback of `validate` and `test`: it writes `metrics.json` and three plots, and prints the metrics."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from mnist_amp.reporting import plots
from mnist_amp.reporting.channels import channels_last
from mnist_amp.reporting.class_names import shortened, unique_names
from mnist_amp.reporting.report_folder import Report, report_folder, unused_folder
from mnist_amp.reporting.tables import facts, table
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.training.calibration import calibration_error, fit_temperature, reliability, score_held_out
from mnist_amp.training.metrics import ClassMetrics, Scored, Scores, evaluation_metrics
from mnist_amp.training.precision import described_precision, device_name, versions

FILES = ("metrics.json", "confusion_matrix.png", "misclassified.png", "reliability.png")
MAX_ROWS, NAME = 12, 30  # classes in the terminal, and characters of their names


@dataclass(frozen=True)
class Evaluation:
    """The result of `validate` or `test`; `metrics.json` has a key for each field.

    Attributes:
        command: `validate` or `test`.
        checkpoint: path of the checkpoint that was scored.
        epochs: its completed epochs; None for weights alone.
        step: its optimizer steps; None for weights alone.
        device: the device that computed the logits.
        precision: the effective precision.
        versions: versions by package.
        images: the number of images.
        loss: mean cross-entropy, in nats.
        accuracy: 0 to 1.
        per_class: a row for each class, in the order of the labels.
        confusion_matrix: number of images by true class (row) and guess (column).
        temperature: that calibrates the probabilities, see `training.calibration`; None without validation images.
        calibration_error: the expected calibration error of the probabilities, 0 to 1.
        calibration_error_at_temperature: of the probabilities at this temperature.
    """

    command: str
    checkpoint: str
    epochs: int | None
    step: int | None
    device: str
    precision: str
    versions: dict[str, str]
    images: int
    loss: float
    accuracy: float
    per_class: list[ClassMetrics]
    confusion_matrix: list[list[int]]
    temperature: float | None = None
    calibration_error: float | None = None
    calibration_error_at_temperature: float | None = None

    def to_json(self) -> str:
        """Return the text of `metrics.json`, with a line for each class and for each row of the confusion matrix."""
        fields = vars(self) | {"per_class": [dataclasses.asdict(row) for row in self.per_class]}
        return "{\n" + ",\n".join(f"  {json.dumps(name)}: {_json(value)}" for name, value in fields.items()) + "\n}\n"


def _json(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"


class EvaluationReport(Report):
    """Writes `metrics.json`, `confusion_matrix.png`, `misclassified.png` and `reliability.png`, and prints the metrics.

    The LightningModule must have an attribute `scores`, a `mnist_amp.training.metrics.Scores` that its validation or
    test step updates. The LightningDataModule must have the attributes `images`, (N, C, H, W) or (N, H, W) uint8, and
    `classes`, the name of each class in the order of the labels:

        report = EvaluationReport(Path("report"), command="test", checkpoint="best.ckpt", epochs=5, step=4300)
        Trainer(callbacks=[report]).test(model, data, ckpt_path="best.ckpt")

    Args:
        folder: folder to write to; it is created if it does not exist. Its name gets what differs from the run, and a
            number if it has another report, see `report_folder`.
        command: `validate` or `test`.
        checkpoint: path of the checkpoint that is scored.
        epochs: its completed epochs; None for weights alone.
        step: its optimizer steps; None for weights alone.
        trained_precision: the effective precision of the run that wrote it; None if it is unknown.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str,
        checkpoint: str,
        epochs: int | None,
        step: int | None,
        trained_precision: str | None = None,
    ) -> None:
        self.folder, self.command, self.checkpoint, self.epochs, self.step = folder, command, checkpoint, epochs, step
        self.trained_precision = trained_precision
        self.scored: Scored
        self.temperature: float | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scored = cast(Scores, pl_module.scores).scored()  # on every process, because it gathers from all of them
        if getattr(trainer.datamodule, "val_is_unseen", True):  # type: ignore[attr-defined]
            self.temperature = fit_temperature(self.scored.logits, self.scored.labels)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scored = cast(Scores, pl_module.scores).scored()
        held_out = score_held_out(trainer, pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        self.temperature = None if held_out is None else fit_temperature(held_out.logits, held_out.labels)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        evaluation = self._evaluation(trainer, data.classes)
        folder = report_folder(self.folder, trainer, self.command, evaluation.images, self.trained_precision)
        folder = unused_folder(folder, "metrics.json", evaluation.to_json())
        metrics, _, last_line = describe(evaluation, str(folder)).rpartition("\n")
        print(metrics, flush=True)  # first, because the files may fail to be written
        self._write(evaluation, folder, data.images)
        self.written = folder
        print(last_line, flush=True)

    def _write(self, evaluation: Evaluation, folder: Path, images: torch.Tensor) -> None:
        classes = [row.class_name for row in evaluation.per_class]
        with atomic_write(folder / "metrics.json") as temporary:
            temporary.write_text(evaluation.to_json(), encoding="utf-8")
        with atomic_write(folder / "confusion_matrix.png") as temporary:
            plots.confusion_matrix(evaluation.confusion_matrix, temporary, classes)
        with atomic_write(folder / "misclassified.png") as temporary:
            calibrated = self.scored._replace(logits=self.scored.logits / (self.temperature or 1.0))
            plots.misclassified(most_confident_mistakes(calibrated, images, classes), temporary)
        with atomic_write(folder / "reliability.png") as temporary:
            calibrated_bins = None if self.temperature is None else reliability(self.scored, self.temperature)
            title = f"ECE {calibration_line(evaluation)}".replace("; ", "\n")
            plots.reliability(reliability(self.scored), calibrated_bins, title, temporary)

    def _evaluation(self, trainer: Trainer, classes: Sequence[str]) -> Evaluation:
        return Evaluation(
            command=self.command,
            checkpoint=self.checkpoint,
            epochs=self.epochs,
            step=self.step,
            device=device_name(trainer),
            precision=described_precision(trainer),
            versions=versions(),
            **vars(evaluation_metrics(self.scored, classes)),
            temperature=self.temperature,
            calibration_error=calibration_error(self.scored),
            calibration_error_at_temperature=(
                None if self.temperature is None else calibration_error(self.scored, self.temperature)
            ),
        )


def most_confident_mistakes(scored: Scored, images: torch.Tensor, classes: Sequence[str]) -> list[plots.Mistake]:
    """Return the mistakes with the most probable guesses, the most probable first.

    Args:
        scored: the logits of images.
        images: all images of the data set, (N, C, H, W) or (N, H, W) uint8.
        classes: the name of each class, in the order of the labels.

    Returns:
        at most `plots.MAX_MISTAKES` mistakes.
    """
    probability, guess = scored.logits.softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(guess != scored.labels).flatten()
    names = unique_names(classes)
    order = probability[wrong].argsort(descending=True, stable=True)
    return [
        plots.Mistake(
            image=channels_last(images[int(scored.indices[row])].cpu().numpy()),
            true_class=names[int(scored.labels[row])],
            predicted_class=names[int(guess[row])],
            probability=float(probability[row]),
        )
        for row in wrong[order][: plots.MAX_MISTAKES].tolist()
    ]


def calibration_line(evaluation: Evaluation) -> str | None:
    """Return how far the probabilities are from the accuracy, and what the temperature makes of it."""
    if evaluation.calibration_error is None:
        return None
    text = f"{evaluation.calibration_error:.2%} (expected calibration error)"
    if (after := evaluation.calibration_error_at_temperature) is None:
        return text
    return f"{text}; {after:.2%} at temperature {evaluation.temperature:.3g}"


def describe(evaluation: Evaluation, folder: str) -> str:
    """Lay out the metrics for the terminal.

    Up to 12 classes are all listed. Of more, the 12 with the lowest F1 are listed; classes without images are not.

    Args:
        evaluation: the metrics.
        folder: the folder of the files.
    """
    lines = {
        "loss": f"{evaluation.loss:.4f} (mean cross-entropy)",
        "accuracy": f"{evaluation.accuracy:.2%} of {evaluation.images:,} images",
        **({"ECE": line} if (line := calibration_line(evaluation)) else {}),
        "files": f"{folder}/ ({', '.join(FILES)})",
    }
    return "\n".join(["", *_class_lines(evaluation.per_class), "", facts(lines)])


def _class_lines(classes: list[ClassMetrics]) -> list[str]:
    names = [shortened(name, NAME) for name in unique_names([row.class_name for row in classes])]
    listed = classes if len(classes) <= MAX_ROWS else _worst(classes)
    numbers = [[f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", f"{row.images:6,d}"] for row in listed]
    rows = [[names[row.index], *cells] for row, cells in zip(listed, numbers, strict=True)]
    lines = [table([["class", "precision", "recall", "    F1", "images"], *rows])]
    if more := len(classes) - len(listed):
        with_images = "" if all(row.images for row in classes) else " of those with images"
        lines.append(f"The classes with the lowest F1{with_images}; {more:,} more are in metrics.json.")
    return lines


def _worst(classes: list[ClassMetrics]) -> list[ClassMetrics]:
    return sorted((row for row in classes if row.images), key=lambda row: row.f1)[:MAX_ROWS]
