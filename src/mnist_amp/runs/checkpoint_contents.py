"""The parts of a checkpoint that this project writes itself, as records.

A loaded checkpoint stays Lightning's plain dict. These records are made from it, after `checkpoint_files.read` has
verified it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from mnist_amp.runs.weights_file import CONFIG, WEIGHTS_ALONE
from mnist_amp.wording import counted

CONFIG_KEY = CONFIG
FOLDER_KEY = "mnist_amp_folder"
PRECISION_KEY = "mnist_amp_precision"
JOB_KEY = "mnist_amp_slurm_job"
TRACKERS_KEY = "mnist_amp_trackers"
CALLBACK_KEY = "RunCheckpoint"


class Progress(NamedTuple):
    """How far a run has trained.

    Attributes:
        epochs: completed epochs.
        step: optimizer steps.
    """

    epochs: int
    step: int


class EpochMetrics(NamedTuple):
    """The metrics of an epoch; None for those that it does not have.

    Attributes:
        epoch: its number, from 0.
        step: optimizer steps of the run at its end.
        train_loss: mean loss of its steps.
        train_accuracy: of its steps, 0 to 1.
        val_loss: of its last validation.
        val_accuracy: of its last validation, 0 to 1.
    """

    epoch: int
    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        return cls(**{name: row[name] for name in cls._fields if name in row})

    def to_dict(self) -> dict[str, float]:
        """Return the metrics that the epoch has, by name. A checkpoint and the plots take this form."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class RunInfo(NamedTuple):
    """The run that wrote a checkpoint; None for what it did not write.

    Attributes:
        config: its resolved configuration, as YAML.
        folder: absolute path of its folder.
        precision: the effective precision, such as `bf16-mixed`.
        slurm_job: the number of its SLURM job.
    """

    config: str | None = None
    folder: str | None = None
    precision: str | None = None
    slurm_job: str | None = None

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Self:
        return cls(*(checkpoint.get(key) for key in (CONFIG_KEY, FOLDER_KEY, PRECISION_KEY, JOB_KEY)))

    def write_to(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(zip((CONFIG_KEY, FOLDER_KEY, PRECISION_KEY, JOB_KEY), self, strict=True))


def progress(checkpoint: Mapping[str, Any]) -> Progress:
    """Return how far the run of a checkpoint had trained."""
    loop = checkpoint["loops"]["fit_loop"]
    begun = int(loop["epoch_progress"]["current"]["ready"])
    epochs = begun if loop["epoch_loop.batch_progress"]["is_last_batch"] else max(begun - 1, 0)
    return Progress(epochs, int(checkpoint["global_step"]))


def described_progress(checkpoint: Mapping[str, Any]) -> str:
    """Return how far the run of a checkpoint had trained, in words; `weights alone` if the file does not tell."""
    if WEIGHTS_ALONE in checkpoint:
        return "weights alone"
    done = progress(checkpoint)
    return f"{counted(done.epochs, 'epoch')} done, step {done.step:,}"


def known_progress(checkpoint: Mapping[str, Any]) -> Progress | None:
    """Return how far the run of a checkpoint had trained; None if the file has weights alone."""
    return None if WEIGHTS_ALONE in checkpoint else progress(checkpoint)


def tracked_runs(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the identifiers that trackers gave the run of a checkpoint, by the class of the logger."""
    runs = checkpoint.get(TRACKERS_KEY)
    return {str(kind): str(run) for kind, run in runs.items()} if isinstance(runs, Mapping) else {}


def history(checkpoint: Mapping[str, Any]) -> list[EpochMetrics]:
    """Return the metrics of each epoch so far; an empty list for a checkpoint of another callback."""
    rows = checkpoint.get("callbacks", {}).get(CALLBACK_KEY, {}).get("history", [])
    return [EpochMetrics.from_dict(row) for row in rows]
