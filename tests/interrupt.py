"""Callbacks that interrupt a run at a certain step: by an exception, so that nothing is saved, or by signals."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from mnist_amp.reporting import plots


class CutOffError(Exception):
    pass


class Interrupt(Callback):
    """Raises before training step `step`, or in the first validation after it."""

    once_per_execution = True

    def __init__(self, step: int, validating: bool = False) -> None:
        self.step, self.validating = step, validating

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.step and not self.validating:
            raise CutOffError

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.global_step >= self.step and self.validating and not trainer.sanity_checking:
            raise CutOffError


class Signalled(Callback):
    """Sends this process signals, one after the other, in training step `step` or when the sanity check begins."""

    def __init__(self, signums: list[int], step: int | None = None) -> None:
        self.signums, self.step = signums, step

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._send(trainer.sanity_checking and self.step is None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._send(trainer.global_step == self.step)

    def _send(self, now: bool) -> None:
        for signum in self.signums if now else ():
            os.kill(os.getpid(), signum)


class SignalledWhileDrawing(Callback):
    """Sends this process SIGINT instead of drawing the curves of the run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        plots.curves = _interrupt


def _interrupt(history: Any, path: Path) -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Slowly(Callback):
    """Makes each step take at least 2 ms, so that 900 steps outlast any moment within a second, on any machine.

    The hook is within the step, so an execution still takes several steps, and signals arrive in the middle of it.
    """

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        time.sleep(0.002)


class ProcessIds(Callback):
    """Writes the id of each process of a run to a file, `pid_` and its rank."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(f"pid_{trainer.global_rank}").write_text(str(os.getpid()))


class StuckWriting(Callback):
    """From training step `step` on, writes half of the next file, creates the file `stuck` and waits."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            Path.write_bytes = _write_half  # type: ignore[assignment, method-assign]


def _write_half(path: Path, data: memoryview) -> int:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    Path("stuck").touch()
    time.sleep(60)
    raise TimeoutError
