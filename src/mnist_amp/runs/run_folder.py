"""The folder of a training run."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mnist_amp.lightning_internals import is_restoring
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import describe_write_errors, remove_stale_files
from mnist_amp.runs.checkpoint_contents import RunInfo
from mnist_amp.runs.checkpoint_files import slurm_job


class RunFolder(Callback):
    """Creates the run's own folder `lightning_logs/version_N`, with its loggers and a copy of its configuration.

    The folder is created only after the Trainer, the data and the model are made and `Preflight` has tried them. So a
    wrong request leaves nothing behind.

    Args:
        root: folder that holds `lightning_logs`.
        config: the resolved configuration as YAML; written to `config.yaml` and kept in every checkpoint.
        csv: whether to log to `metrics.csv` there, beside the loggers of the Trainer.
        tensorboard: whether to log to TensorBoard there.
    """

    def __init__(
        self,
        root: Path,
        config: str,
        *,
        csv: bool = True,
        tensorboard: bool = True,
    ) -> None:
        self.root, self.config, self.csv, self.tensorboard = root, config, csv, tensorboard
        self.path = Path()  # known from `setup` on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        created = str(folders.create_run_dir(self.root)) if trainer.is_global_zero else ""
        self.path = Path(trainer.strategy.broadcast(created))
        if trainer.is_global_zero:
            remove_stale_files(folders.logs_dir(self.root))
            with describe_write_errors(self.path / "config.yaml"):
                (self.path / "config.yaml").write_text(self.config, encoding="utf-8")
        parent, version = str(self.path.parent), self.path.name
        if self.tensorboard:
            trainer.loggers.append(TensorBoardLogger(parent, name="", version=version, default_hp_metric=False))
        if self.csv:
            # RunCheckpoint flushes it before each checkpoint
            trainer.loggers.append(CSVLogger(parent, name="", version=version, flush_logs_every_n_steps=10**9))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if is_restoring(trainer) and trainer.is_global_zero and self.path != Path():
            shutil.rmtree(self.path)  # nothing has run yet
            with contextlib.suppress(OSError):  # not empty: there are other runs
                folders.logs_dir(self.root).rmdir()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        precision = str(trainer.precision_plugin.precision)
        RunInfo(self.config, str(self.path.absolute()), precision, slurm_job()).write_to(checkpoint)
