"""The report of `validate` and `test`."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.reporting import plots
from mnist_amp.reporting.text import evaluation
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.training.metrics import Scored, Scores, evaluation_metrics
from mnist_amp.training.precision import described_precision, device_name, versions

WORST = 25  # mistakes shown in misclassified.png


class EvaluationReport(Callback):
    """Writes `metrics.json`, `confusion_matrix.png` and `misclassified.png`, and prints the figures.

    Args:
        folder: where to write; made if it is missing.
        facts: what to record beside the figures: which checkpoint was scored, how far it was trained.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.scored: Scored

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scored = cast(Scores, pl_module.scores).compute()  # here and on every process, as it gathers from them all

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scored = cast(Scores, pl_module.scores).compute()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        record = {
            **self.facts,
            "device": device_name(trainer),
            "precision": described_precision(trainer),
            "versions": versions(),
            **dataclasses.asdict(evaluation_metrics(self.scored)),
        }
        with atomic_write(self.folder / "metrics.json") as draft:
            draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        with atomic_write(self.folder / "confusion_matrix.png") as draft:
            plots.confusion_matrix(record["confusion_matrix"], draft)
        with atomic_write(self.folder / "misclassified.png") as draft:
            plots.misclassified(_worst(self.scored, trainer), draft)
        print(evaluation(record, str(self.folder)), flush=True)


def _worst(scored: Scored, trainer: Trainer) -> list[plots.Mistake]:
    """Return the mistakes that the model was surest of, the surest first."""
    probability, guess = scored.logits.softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(guess != scored.labels).flatten()
    worst = wrong[probability[wrong].argsort(descending=True, stable=True)][:WORST].tolist()
    images = trainer.datamodule.images  # type: ignore[attr-defined]
    return [
        plots.Mistake(
            image=images[int(scored.indices[place])].cpu().numpy(),
            digit=int(scored.labels[place]),
            guess=int(guess[place]),
            probability=float(probability[place]),
        )
        for place in worst
    ]
