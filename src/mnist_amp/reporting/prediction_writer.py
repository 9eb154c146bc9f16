"""The predictions of `predict`."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.runs.atomic_files import write_table
from mnist_amp.training.metrics import Scores

COLUMNS = [f"p{digit}" for digit in range(10)]


def as_text(probabilities: Iterable[float]) -> list[str]:
    return [f"{probability:.6f}" for probability in probabilities]


class PredictionWriter(Callback):
    """Writes `predictions.csv`: for each test image its place in the set, its digit, the guess and ten probabilities.

    Args:
        folder: where to write; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scored = cast(Scores, pl_module.scores).compute()  # on every process, as it gathers from them all
        if not trainer.is_global_zero:
            return
        guesses = scored.logits.argmax(dim=1).tolist()
        probabilities = scored.logits.softmax(dim=1).tolist()
        path = self.folder / "predictions.csv"
        found = zip(scored.indices.tolist(), scored.labels.tolist(), guesses, probabilities, strict=True)
        rows = ([index, digit, guess, *as_text(row)] for index, digit, guess, row in found)
        write_table(path, [["index", "digit", "guess", *COLUMNS], *rows])
        self.written = f"{len(guesses):,} predictions in {path}"

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(self.written, flush=True)
