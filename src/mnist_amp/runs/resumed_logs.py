"""The logs of a resumed run: they begin with the rows that the earlier run logged."""

import csv
import operator
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from mnist_amp.errors import warn
from mnist_amp.lightning_internals import LogRow, pending_row
from mnist_amp.runs.checkpoint_contents import Progress, progress
from mnist_amp.runs.checkpoint_files import source_run_dir
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trackers import add_to

KEY = "pending_row"


class ResumedLogs(Callback):
    """Copies the rows of the earlier run's `metrics.csv`, up to the checkpoint, into the logs of the resumed run.

    The logs are then those of a run without an interruption. Lightning logs some rows only after the checkpoint of
    their step; such a row is kept in the checkpoint.

    Args:
        run: the folder of the resumed run.
        continued: loggers that are left alone, because they continue a run that has these rows already.
    """

    def __init__(self, run: RunFolder, continued: Collection[Logger] = ()) -> None:
        self.run, self.continued = run, continued
        self.rows: list[LogRow] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (row := pending_row(trainer)) is not None:
            checkpoint[KEY] = {**row.metrics, "epoch": trainer.current_epoch, "step": row.step}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        folder = source_run_dir(Path(str(trainer.ckpt_path)), checkpoint)
        self.rows = _rows_before(folder / "metrics.csv", progress(checkpoint))
        if checkpoint.get(KEY) is not None:
            pending = _row(checkpoint[KEY])
            if not any(row.step == pending.step and set(pending.metrics) <= set(row.metrics) for row in self.rows):
                self.rows.append(pending)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers if self.rows else []:
            if logger not in self.continued:
                add_to(logger, "add_rows", self.rows)


def _rows_before(path: Path, done: Progress) -> list[LogRow]:
    """Read the rows of the steps that are done, except the means of an epoch that was interrupted."""
    if not path.is_file():
        return []
    complete, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")  # a kill may cut the last line
    table = csv.DictReader(complete.splitlines())
    try:
        found = [{name: _number(text) for name, text in row.items() if text} for row in table]
        rows = [_row(row) for row in found if "step" in row]
    except (AttributeError, TypeError, ValueError, csv.Error):
        warn(f"{path} is damaged, so its rows are not copied into the logs of this run.")
        return []
    return [row for row in rows if row.step < done.step and not _is_mean_after(row, done.epochs)]


def _row(values: Mapping[str, Any]) -> LogRow:
    """Return the row of metrics by name, with the key `step`; the epoch is one of its metrics.

    Raises:
        KeyError, TypeError, ValueError: there is no step, or a value is not a number.
    """
    metrics = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
    del metrics["step"]
    return LogRow(operator.index(values["step"]), metrics)


def _is_mean_after(row: LogRow, epochs: int) -> bool:
    """Whether a row has the means of an epoch that comes after the first `epochs` ones."""
    return "train_loss" in row.metrics and row.metrics.get("epoch", 0) >= epochs


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)
