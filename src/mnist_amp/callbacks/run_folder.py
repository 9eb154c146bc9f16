"""The folder of a training run."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.optim import Optimizer

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
        checkpoint: that the run goes on from, after its path; its optimizer is tried before the folder is made.
    """

    def __init__(
        self,
        root: Path,
        config: str,
        *,
        default_loggers: bool = True,
        checkpoint: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        self.root, self.config, self.default_loggers, self.checkpoint = root, config, default_loggers, checkpoint
        self.path = Path()  # known from `setup` on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        _try(trainer, pl_module, self.checkpoint)
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

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if runs.is_restoring(trainer) and trainer.is_global_zero and self.path != Path():
            shutil.rmtree(self.path)  # nothing has run yet
            with contextlib.suppress(OSError):  # it is not empty, as there are other runs
                runs.logs(self.root).rmdir()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[runs.CONFIG_KEY] = self.config
        checkpoint[runs.FOLDER_KEY] = str(self.path.absolute())
        checkpoint[runs.PRECISION_KEY] = effective_precision(trainer)
        checkpoint[runs.JOB_KEY] = runs.job()


def _try(trainer: Trainer, pl_module: LightningModule, checkpoint: tuple[str, dict[str, Any]] | None) -> None:
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
        _try_optimizer(made["optimizer"], checkpoint)
        trainer.fit_loop.setup_data()
    except ArithmeticError as error:
        raise RequestError(f"the optimizer or its schedule can't be used: {error}.") from error
    except (ValueError, MisconfigurationException) as error:
        raise RequestError(" ".join(str(error).split())) from error


def _try_optimizer(optimizer: Optimizer, checkpoint: tuple[str, dict[str, Any]] | None) -> None:
    """Take a step, and one with the checkpoint's state, whose shapes would crash torch if they were wrong.

    The weights are as before then; the optimizer is not.
    """
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    try:
        name = "the optimizer can't be used"
        _step(optimizer)
        if checkpoint is not None:
            path, saved = checkpoint
            name = f"{path} is damaged: the state of its optimizer can't be loaded"
            _load(optimizer, saved["optimizer_states"][0])
            _step(optimizer)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}.") from error
    for weight, value in zip(weights, before, strict=True):
        weight.data.copy_(value)
        weight.grad = None


def _step(optimizer: Optimizer) -> None:
    """Take a step with gradients of zero, on the CPU, as the Trainer has not moved anything yet."""
    for group in optimizer.param_groups:
        group.update({"capturable": False} if "capturable" in group else {})
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type,return-value]


def _load(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    shapes = {parameter: _shapes(state) for parameter, state in optimizer.state.items()}
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        for name, shape in _shapes(state).items():
            if shapes[parameter].get(name, shape) != shape:
                raise ValueError(f"{name} has the shape {tuple(shape)}, not {tuple(shapes[parameter][name])}")


def _shapes(state: dict[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor)}
