"""The predictions of `predict --images`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from mnist_amp import signals
from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.images.array_files import submission
from mnist_amp.images.files import left_out_files
from mnist_amp.inference.image_data import ImageDataModule, LoadedImage, counted_images
from mnist_amp.inference.labelled_images import FILES, LabelledImage, described_accuracy, write_plots
from mnist_amp.inference.out_of_distribution import NOTE as UNLIKE
from mnist_amp.inference.out_of_distribution import Reference
from mnist_amp.inference.saved_images import SavedImages
from mnist_amp.reporting.channels import channels_last
from mnist_amp.reporting.class_names import unique_names
from mnist_amp.reporting.contact_sheet import Tile, contact_sheet
from mnist_amp.reporting.prediction_table import image_counts, number, prediction_table
from mnist_amp.reporting.prediction_writer import csv_cells, described_temperature, probability_columns
from mnist_amp.reporting.report_folder import Report
from mnist_amp.reporting.tables import facts
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import atomic_write, write_table
from mnist_amp.signals import Stopped
from mnist_amp.training.metrics import Scored, Scores
from mnist_amp.wording import counted, printable

SURE = 0.8  # a guess with a lower probability is unsure
LIMITED = "not scored: trainer.limit_predict_batches is too low"
SHEET = 1000  # images on a sheet


class ImagePredictions(Report):
    """Writes `predictions.csv` and `predictions.png`, and prints a table of at most 30 images.

    `predictions.csv` has a row for each image or, if an image has several digits, for each digit in reading order. Its
    columns are `file`, `page`, `row` and `digit` (from 1; empty if there is only one), `class` (if it is known),
    `guess` (the name of a class), `probability` (of the guess), the probability of each class as with
    `PredictionWriter`, `distance` (from the training images, see `Reference`; over 1 is noted), `number` (the guesses
    for all digits of the row, if there are several) and `note`.

    If the classes of images are known, it also writes `confusion_matrix.png` and `misclassified.png`, and prints the
    accuracy. For a table of pixels without labels, it also writes Kaggle's `submission.csv`.

    Args:
        root: folder of the runs; the files are written to a new folder `lightning_logs/predict/version_N` in it.
        data: the images that are scored; its `classes` are the name of each class, in the order of the labels.
        training: the data that the network was trained with, to compare with.
        saved: the folders that the images are saved in as well; None if they are not.
    """

    def __init__(
        self,
        root: Path,
        data: ImageDataModule,
        training: ClassificationDataModule,
        saved: SavedImages | None = None,
    ) -> None:
        self.root, self.data, self.training, self.saved = root, data, training, saved
        self.reference: Reference | None = None
        self.distances: list[float | None] = []
        self.tiles: list[Tile] = []
        self.by_image: dict[str, list[Tile]] = {}  # the tiles of each image, by its name

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:  # no other process writes
            self.reference = Reference.of(cast(nn.Module, pl_module.model), self.training)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scored = cast(Scores, pl_module.scores).scored()  # on every process, because it gathers from all
        if not trainer.is_global_zero:
            return
        found = self._compared(scored)
        for index, image in enumerate(self.data.loaded):
            probabilities, distance = (None, math.nan) if image.error else found.get(index, (None, math.nan))
            note = _note(probabilities, distance, image)
            if probabilities is not None and not all(map(math.isfinite, probabilities)):
                probabilities, distance = None, math.nan
            tile = Tile(image.name, channels_last(image.pixels), probabilities, note, image.row)
            self.tiles.append(tile)
            self.distances.append(None if math.isnan(distance) else distance)
            self.by_image.setdefault(image.image, []).append(tile)

    def _compared(self, scored: Scored) -> dict[int, tuple[list[float], float]]:
        """Return the probabilities and the distance of each image that was scored, by its index."""
        temperature, distances = 1.0, torch.full((len(scored.indices),), math.nan)
        if self.reference is not None:
            pixels = self.data.images[scored.indices.to(self.data.images.device)]
            temperature = self.reference.temperature or 1.0
            found = (self.data.loaded[index] for index in scored.indices.tolist())
            photographs = torch.tensor([image.is_photograph for image in found], dtype=torch.bool)
            distances = self.reference.distances(pixels, scored.logits.argmax(dim=1), photographs)
        probabilities = (scored.logits.double() / temperature).softmax(dim=1)
        return dict(
            zip(scored.indices.tolist(), zip(probabilities.tolist(), distances.tolist(), strict=True), strict=True)
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        print(prediction_table(self.by_image, self.data.classes))  # first, because the files may fail to be written
        whole = [image for image in self.data.loaded if image.noun != "image"]
        unread = {image.image for image in whole}
        lines = {"images": image_counts({name: tiles for name, tiles in self.by_image.items() if name not in unread})}
        if whole:  # the number of their images is unknown
            lines["not read"] = counted_images(whole)
        if left_out := self.data.found.left_out:
            lines["left out"] = f"{counted(len(left_out), 'file')}: {left_out_files(left_out)}"
        temperature = None if self.reference is None else self.reference.temperature
        lines |= described_temperature(temperature, self.training)
        if labelled := self._labelled():
            lines["accuracy"] = described_accuracy(labelled)
        if self._is_submission() and (missing := self._guesses().count(None)):
            lines["submission"] = f"{counted(missing, 'row')} without a guess: the label in submission.csv is 0"
        try:
            with signals.keyboard_interrupts(), folders.transactional_run_dir(self.root, "predict") as folder:
                lines["files"] = f"{folder}/ ({', '.join(self._write(folder))})"
            self.written = folder
            if self.saved:
                lines["images saved"] = self.saved.write(self.data.loaded, self.tiles)
        except KeyboardInterrupt as interrupt:
            raise Stopped(interrupt.args[0], "before the predictions were written.") from None
        finally:
            print(facts(lines), flush=True)

    def _labelled(self) -> list[LabelledImage]:
        labels = {image.image: image.label for image in self.data.loaded}
        # without those that a limit of the Trainer left out
        known = ((labels[name], tiles) for name, tiles in self.by_image.items() if tiles[0].note != LIMITED)
        return [LabelledImage(label, tiles) for label, tiles in known if label is not None]

    def _write(self, folder: Path) -> list[str]:
        """Write the files; returns their names."""
        files = ["predictions.csv"]
        self._write_table(folder / files[0])
        sheets: list[str] = []
        for start in range(0, len(self.tiles), SHEET):
            sheets.append(f"predictions-{start // SHEET + 1}.png" if start else "predictions.png")
            with atomic_write(folder / sheets[-1]) as temporary:
                contact_sheet(self.tiles[start : start + SHEET], temporary, self.data.classes)
        files += sheets if len(sheets) < 3 else [f"{sheets[0]} to {sheets[-1]}"]
        if labelled := self._labelled():
            write_plots(labelled, folder, self.data.classes)
            files += FILES
        if self._is_submission():
            write_table(folder / "submission.csv", submission(self._guesses()))
            files.append("submission.csv")
        return files

    def _is_submission(self) -> bool:
        """Whether the images are all rows of one table without labels, as Kaggle's "Digit Recognizer" gives them."""
        is_table = {image.path.suffix.lower() for image in self.data.loaded} == {".csv"}
        is_unlabelled = all(image.label is None for image in self.data.loaded)
        # of a table that can't be read, even the number of rows is unknown
        is_complete = not self.data.unreadable() and all(tile.note != LIMITED for tile in self.tiles)
        return is_table and is_unlabelled and is_complete and len(self.data.found.files) == 1

    def _guesses(self) -> list[str | None]:
        """Return the guess for each image; None if it has none, or several."""
        names = unique_names(self.data.classes)
        guesses = (tiles[0].guess if len(tiles) == 1 else None for tiles in self.by_image.values())
        return [None if guess is None else names[guess] for guess in guesses]

    def _write_table(self, path: Path) -> None:
        columns = ["probability", *probability_columns(self.data.classes), "distance", "number", "note"]
        write_table(path, [["file", "page", "row", "digit", "class", "guess", *columns], *self._rows()])

    def _rows(self) -> Iterator[list[Any]]:
        names, images = unique_names(self.data.classes), self.by_image
        for image, tile, distance in zip(self.data.loaded, self.tiles, self.distances, strict=True):
            row = [other for other in images[image.image] if other.row == tile.row]
            yield [
                *(printable(image.path), image.page, image.row if image.digit else None, image.digit),
                "" if image.label is None else names[image.label],
                *_guess_cells(tile, names),
                "" if distance is None else f"{distance:.3f}",
                *(number(row, names) if len(row) > 1 else "", tile.note),
            ]


def _guess_cells(tile: Tile, names: list[str]) -> list[str]:
    if tile.guess is None or tile.probabilities is None:
        return [""] * (len(names) + 2)
    return [names[tile.guess], *csv_cells([max(tile.probabilities), *tile.probabilities])]


def _note(probabilities: list[float] | None, distance: float, image: LoadedImage) -> str:
    """Return the note on an image; most images have none."""
    if image.error is not None:
        return str(image.error)
    if probabilities is None:
        return LIMITED
    if not all(map(math.isfinite, probabilities)):
        return "not scored: the network's output is not finite"
    unlike = [UNLIKE] if distance > 1 else []
    return "; ".join([*image.notes, *unlike, *(["unsure"] if max(probabilities) < SURE else [])])
