"""The folder of a training run."""

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mnist_amp import runs
from mnist_amp.errors import RequestError
from mnist_amp.files import sweep, writing
from mnist_amp.precision import effective_precision


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
        _try(trainer, pl_module)
        claimed = str(runs.claim(self.root)) if trainer.is_global_zero else ""
        self.path = Path(trainer.strategy.broadcast(claimed))
        if trainer.is_global_zero:
            sweep(runs.logs(self.root))
            with writing(self.path / "config.yaml"):
                (self.path / "config.yaml").write_text(self.config, encoding="utf-8")
        if self.default_loggers:
            parent, version = str(self.path.parent), self.path.name
            trainer.loggers = [
                TensorBoardLogger(parent, name="", version=version, default_hp_metric=False),
                # RunCheckpoint flushes it before each checkpoint
                CSVLogger(parent, name="", version=version, flush_logs_every_n_steps=10**9),
            ]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[runs.CONFIG_KEY] = self.config
        checkpoint[runs.FOLDER_KEY] = str(self.path.absolute())
        checkpoint[runs.PRECISION_KEY] = effective_precision(trainer)
        checkpoint[runs.JOB_KEY] = runs.job()


def _try(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make the optimizer, its schedule and the loaders before anything is written; the Trainer will make its own."""
    if effective_precision(trainer) == "16-true" and trainer.strategy.root_device.type == "cpu":
        raise RequestError(
            "trainer.precision is 16-true, in which training on a CPU comes to nan at once, as Adam's smallest numbers "
            "are zero in fp16. Take bf16-true, or fp16 with a GradScaler as in --config configs/fp16-cpu.yaml."
        )
    try:
        made: Any = pl_module.configure_optimizers()
        if "lr_scheduler" in made and not isinstance(made["lr_scheduler"]["scheduler"], ReduceLROnPlateau):
            made["optimizer"].step()  # without gradients it changes nothing
            made["lr_scheduler"]["scheduler"].step()
        trainer.fit_loop.setup_data()
    except ArithmeticError as error:
        raise RequestError(f"the optimizer or its schedule can't be used: {error}.") from error
    except (ValueError, MisconfigurationException) as error:
        raise RequestError(" ".join(str(error).split())) from error
