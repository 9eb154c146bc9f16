"""The folder of a training run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mnist_amp import runs
from mnist_amp.errors import RequestError


class RunFolder(Callback):
    """Gives a run its own `lightning_logs/version_N`, its loggers there, and a copy of its configuration.

    The folder is made only when the Trainer, the data and the model are there and the optimizer can be made, so that a
    wrong request leaves nothing.

    Args:
        root: folder that holds `lightning_logs`.
        config: the resolved configuration as YAML; written to `config.yaml` and kept in every checkpoint.
        default_loggers: whether to log to TensorBoard and CSV there.
    """

    def __init__(self, root: Path, config: str, *, default_loggers: bool = True) -> None:
        self.root, self.config, self.default_loggers = root, config, default_loggers
        self.path = Path()  # known from `setup` on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        _try_optimizer(pl_module)
        claimed = str(runs.claim(self.root)) if trainer.is_global_zero else ""
        self.path = Path(trainer.strategy.broadcast(claimed))
        if trainer.is_global_zero:
            (self.path / "config.yaml").write_text(self.config, encoding="utf-8")
        if self.default_loggers:
            parent, version = str(self.path.parent), self.path.name
            trainer.loggers = [
                TensorBoardLogger(parent, name="", version=version, default_hp_metric=False),
                CSVLogger(parent, name="", version=version),
            ]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[runs.CONFIG_KEY] = self.config


def _try_optimizer(pl_module: LightningModule) -> None:
    """Make the optimizer and its schedule once before anything is written; the Trainer makes its own later."""
    try:
        pl_module.configure_optimizers()
    except RequestError:
        raise
    except (ValueError, TypeError) as error:
        raise RequestError(f"the optimizer or its schedule can't be made: {error}.") from error
