"""The callback that writes the predictions of `predict`."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.reporting.tables import facts
from mnist_amp.runs.atomic_files import write_table
from mnist_amp.training.metrics import Scores

PROBABILITY_COLUMNS = [f"p{digit}" for digit in range(10)]


def csv_cells(probabilities: Iterable[float]) -> list[str]:
    """Return probabilities (0 to 1) as cells of a CSV file."""
    return [f"{probability:.6f}" for probability in probabilities]


class PredictionWriter(Callback):
    """Writes `predictions.csv`: a row for each image with its index, its digit, the guess and ten probabilities.

    Args:
        folder: folder to write to; it is created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scored = cast(Scores, pl_module.scores).compute()  # on every process, because it gathers from all of them
        if not trainer.is_global_zero:
            return
        guesses = scored.logits.argmax(dim=1).tolist()
        probabilities = scored.logits.softmax(dim=1).tolist()
        images = zip(scored.indices.tolist(), scored.labels.tolist(), guesses, probabilities, strict=True)
        rows = ([index, digit, guess, *csv_cells(row)] for index, digit, guess, row in images)
        write_table(self.folder / "predictions.csv", [["index", "digit", "guess", *PROBABILITY_COLUMNS], *rows])
        self.count = len(guesses)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(facts({"images": f"{self.count:,}", "files": f"{self.folder}/ (predictions.csv)"}), flush=True)
