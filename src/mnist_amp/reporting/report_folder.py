"""The folder of a report: its name tells what differs from the run, and it never replaces another report."""

import itertools
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from mnist_amp.training.precision import effective_precision


class Report(Callback):
    """A callback that writes a report into a folder.

    Attributes:
        written: the folder; None before the report is written.
    """

    written: Path | None = None


def report_folder(folder: Path, trainer: Trainer, command: str, images: int, trained_precision: str | None) -> Path:
    """Return the folder with what differs from the run and the whole data set, such as `test_best_32-true_256-images`.

    Args:
        folder: for a report on all images, in the precision of the run.
        trainer: has evaluated.
        command: `validate`, `test` or `predict`.
        images: the number of images that were evaluated.
        trained_precision: of the run; None if it is unknown.
    """
    precision = effective_precision(trainer)
    differs = [] if trained_precision in (None, precision) else [precision]
    if _is_limited(trainer, command):
        differs.append(f"{images}-images")
    return folder.with_name("_".join([folder.name, *differs]))


def unused_folder(folder: Path, name: str, content: str) -> Path:
    """Return the folder, or one with a number after its name if it has another report.

    Args:
        folder: to write to.
        name: of the main file of the report.
        content: of that file. A report with the same content is replaced.

    Examples:
        >>> unused_folder(Path("test_best"), "metrics.json", "{}")  # there is a report with other metrics
        PosixPath('test_best_2')  # doctest: +SKIP
    """
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        file = candidate / name
        if not file.exists() or file.read_bytes() == content.encode():
            return candidate
    raise AssertionError  # the count does not end


def _is_limited(trainer: Trainer, command: str) -> bool:
    """Whether a limit of the Trainer left out some of the batches."""
    batches, loaders = {
        "validate": (trainer.num_val_batches, trainer.val_dataloaders),
        "test": (trainer.num_test_batches, trainer.test_dataloaders),
        "predict": (trainer.num_predict_batches, trainer.predict_dataloaders),
    }[command]
    all_loaders: list[Any] = loaders if isinstance(loaders, list) else [loaders]
    return sum(batches) < sum(map(len, all_loaders))
