"""The predictions of `predict --images`."""

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer

from mnist_amp import signals
from mnist_amp.errors import RequestError, RunError
from mnist_amp.inference.image_data import ImageDataModule
from mnist_amp.reporting.channels import channels_last
from mnist_amp.reporting.class_names import unique_names
from mnist_amp.reporting.contact_sheet import Tile, contact_sheet
from mnist_amp.reporting.prediction_table import prediction_table
from mnist_amp.reporting.prediction_writer import csv_cells, probability_columns
from mnist_amp.reporting.report_folder import Report
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import atomic_write, write_table
from mnist_amp.signals import Stopped
from mnist_amp.training.metrics import Scores
from mnist_amp.wording import printable

SURE = 0.8  # a guess with a lower probability is unsure
SHEET = 1000  # images on a sheet


class ImagePredictions(Report):
    """Writes `predictions.csv` and `predictions.png`, and prints a table of at most 30 images.

    The columns of `predictions.csv` are `file`, `guess` (the name of a class), `probability` (of the guess), the
    probability of each class as with `PredictionWriter`, and `note`.

    Args:
        root: folder of the runs; the files are written to a new folder `lightning_logs/predict/version_N` in it.
        data: the images that are scored; its `classes` are the name of each class, in the order of the labels.
    """

    def __init__(self, root: Path, data: ImageDataModule) -> None:
        self.root, self.data = root, data
        self.rows: list[Tile] = []

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scored = cast(Scores, pl_module.scores).scored()  # on every process, because it gathers from all
        indices = scored.indices.reshape(-1).tolist()  # the index of a single image is a scalar
        found = dict(zip(indices, scored.logits.double().softmax(dim=1).tolist(), strict=True))
        for index, image in enumerate(self.data.loaded):
            probabilities = None if image.error else found.get(index)
            note = "; ".join(filter(None, [*image.notes, _note(probabilities, image.error)]))
            name = printable(image.path) + (f" ({image.page})" if image.page else "")
            self.rows.append(Tile(name, channels_last(image.pixels), probabilities, note))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        try:
            with signals.keyboard_interrupts(), folders.transactional_run_dir(self.root, "predict") as folder:
                files = self._write(folder)
            self.written = folder
        except KeyboardInterrupt as interrupt:
            raise Stopped(interrupt.args[0], "before the predictions were written.") from None
        except (OSError, RequestError, RunError):
            print(prediction_table(self.rows, None, [], self.data.classes), flush=True)
            raise
        print(prediction_table(self.rows, str(folder), files, self.data.classes), flush=True)

    def _write(self, folder: Path) -> list[str]:
        """Write the files; returns their names."""
        files = ["predictions.csv"]
        self._write_table(folder / files[0])
        for start in range(0, len(self.rows), SHEET):
            files.append(f"predictions-{start // SHEET + 1}.png" if start else "predictions.png")
            with atomic_write(folder / files[-1]) as temporary:
                contact_sheet(self.rows[start : start + SHEET], temporary, self.data.classes)
        return files

    def _write_table(self, path: Path) -> None:
        names, columns = unique_names(self.data.classes), probability_columns(self.data.classes)
        head = ["file", "guess", "probability", *columns, "note"]
        write_table(path, [head, *(_cells(row, names) for row in self.rows)])


def _cells(row: Tile, names: list[str]) -> list[Any]:
    if row.guess is None or row.probabilities is None:
        return [row.name, *[""] * (len(names) + 2), row.note]
    return [row.name, names[row.guess], *csv_cells([max(row.probabilities), *row.probabilities]), row.note]


def _note(probabilities: list[float] | None, error: Exception | None) -> str:
    """Return the note on an image; most images have none."""
    if error is not None:
        return str(error)
    if probabilities is None:
        return "not scored: trainer.limit_predict_batches is too low"
    return "unsure" if max(probabilities) < SURE else ""
