"""The logs of a run that goes on: they begin with what was logged before."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import warn
from mnist_amp.lightning_internals import pending_row
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.run_folder import RunFolder

KEY = "pending_row"
Row = dict[str, float]


class LoggedRows(Callback):
    """Copies the rows of the old run's `metrics.csv` up to the checkpoint into the new run's logs.

    So the logs are those of a run that was never interrupted. A row that Lightning logs only after the checkpoint of
    its step is kept in that checkpoint. Loggers of the user's own are left alone.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.rows: list[Row] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (row := pending_row(trainer)) is not None:
            checkpoint[KEY] = {**row.metrics, "epoch": trainer.current_epoch, "step": row.step}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.rows = _rows(
            checkpoint_files.origin(Path(str(trainer.ckpt_path)), checkpoint) / "metrics.csv",
            **checkpoint_files.position(checkpoint),
        )
        pending = checkpoint.get(KEY)
        if pending and not any(row["step"] == pending["step"] and set(pending) <= set(row) for row in self.rows):
            self.rows.append(pending)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers if self.run.default_loggers else []:
            for row in self.rows:
                figures = {name: value for name, value in row.items() if name != "step"}
                logger.log_metrics(figures, step=int(row["step"]))


def _rows(path: Path, epochs: int, step: int) -> list[Row]:
    """Read what was logged in the first `step` steps, but for the means of an epoch that was cut short."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")  # a kill may tear the last line
    try:
        rows = [
            {name: _number(text) for name, text in row.items() if text} for row in csv.DictReader(whole.splitlines())
        ]
    except (AttributeError, ValueError, csv.Error):
        warn(f"{path} is damaged, so what it has logged is not carried over.")
        return []
    return [
        row
        for row in rows
        if row.get("step", step) < step and not ("train_loss" in row and row.get("epoch", 0) >= epochs)
    ]


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)
