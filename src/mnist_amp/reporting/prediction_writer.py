"""The callback that writes the predictions of `predict`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer

from mnist_amp.errors import RequestError
from mnist_amp.reporting.class_names import unique_names
from mnist_amp.reporting.report_folder import Report, report_folder, unused_folder
from mnist_amp.reporting.tables import facts
from mnist_amp.runs.atomic_files import atomic_write, table_text
from mnist_amp.training.calibration import fit_temperature, score_held_out, why_unknown
from mnist_amp.training.metrics import Scored, Scores


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns with the probability of each class: `p` and the index of the class, whatever its name.

    >>> probability_columns(["cat", "dog, running", "dog, running"])
    ['p0', 'p1', 'p2']
    """
    return [f"p{index}" for index in range(len(classes))]


def csv_cells(probabilities: Iterable[float]) -> list[str]:
    """Return probabilities (0 to 1) as cells of a CSV file."""
    return [f"{probability:.6f}" for probability in probabilities]


def described_temperature(temperature: float | None, data: object) -> dict[str, str]:
    """Return the line with the temperature of the probabilities, by its name; or why there is none.

    Args:
        temperature: None if it is unknown.
        data: that the network was trained with.
    """
    if temperature is None:
        return {"temperature": f"none ({why_unknown(data)})"}
    return {"temperature": f"{temperature:.4g} (of probabilities, fitted on validation images)"}


class PredictionWriter(Report):
    """Writes `predictions.csv`: a row for each image.

    Its columns are `index` (of the image), `class` and `guess` (names), `probability` (of the guess), and the
    probability of each class: `p0`, `p1` and so on, in the order of the labels. If several classes have the same name,
    their index is added to it. The probabilities are at the temperature of the validation images, if there are some to
    fit it on, see `training.calibration`. The LightningDataModule must have an attribute `classes`, the name of each
    class.

    Args:
        folder: folder to write to; it is created if it does not exist. Its name gets what differs from the run, and a
            number if it has other predictions, see `report_folder`.
        trained_precision: the effective precision of the run; None if it is unknown.

    Raises:
        RequestError: the folder can't be written to.
    """

    def __init__(self, folder: Path, trained_precision: str | None = None) -> None:
        self.folder, self.trained_precision = folder, trained_precision
        self.count, self.table = 0, ""
        self.temperature: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        parent = next(path for path in self.folder.absolute().parents if path.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise RequestError(
                f"the predictions can't be written to {self.folder}: {parent} is not writable. Copy the checkpoint to "
                "another folder, and name it with --ckpt_path."
            )

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # on every process, because both compute with all of them
        scored = cast(Scores, pl_module.scores).scored()
        held_out = score_held_out(trainer, pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        classes = trainer.datamodule.classes  # type: ignore[attr-defined]
        self.temperature = None if held_out is None else fit_temperature(held_out.logits, held_out.labels)
        head = ["index", "class", "guess", "probability", *probability_columns(classes)]
        self.table = table_text([head, *_rows(scored, unique_names(classes), self.temperature or 1.0)])
        self.count = len(scored.labels)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = report_folder(self.folder, trainer, "predict", self.count, self.trained_precision)
        folder = unused_folder(folder, "predictions.csv", self.table)
        with atomic_write(folder / "predictions.csv") as temporary:
            temporary.write_text(self.table, encoding="utf-8", newline="")
        self.written = folder
        temperature = described_temperature(self.temperature, trainer.datamodule)  # type: ignore[attr-defined]
        lines = {"images": f"{self.count:,}", **temperature}
        print(facts({**lines, "files": f"{folder}/ (predictions.csv)"}), flush=True)


def _rows(scored: Scored, names: list[str], temperature: float) -> Iterator[list[Any]]:
    probabilities = (scored.logits.double() / temperature).softmax(dim=1)
    best, guesses = probabilities.max(dim=1)
    columns = (scored.indices.tolist(), scored.labels.tolist(), guesses.tolist(), best.tolist(), probabilities)
    for index, label, guess, probability, row in zip(*columns, strict=True):
        yield [index, names[label], names[guess], *csv_cells([probability, *row.tolist()])]
