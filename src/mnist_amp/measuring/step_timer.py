"""A callback that times optimizer steps."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.measuring.compare_records import MemoryUse
from mnist_amp.measuring.memory import measure_memory
from mnist_amp.measuring.module_access import batches_from_start, captures_steps

WARMUP = 20  # optimizer steps; fewer if they take half of the time that is measured
CAPTURE_EPOCHS = 3  # after these, each CUDA graph is captured


@dataclass(frozen=True)
class StepTiming:
    """The result of a `StepTimer`.

    Attributes:
        seconds: mean time of an optimizer step, with the loop around it.
        steps: number of steps that were timed.
        data_seconds: mean time to get the batches of a step, measured separately.
        memory: used by training.
    """

    seconds: float
    steps: int
    data_seconds: float
    memory: MemoryUse


class StepTimer(Callback):
    """Times optimizer steps after a warm-up, and then stops the fit.

    The fit must not end before that, so give the Trainer no limits. Validation would be timed with the steps::

        timer = StepTimer(seconds=1.0)
        trainer = Trainer(max_epochs=-1, limit_val_batches=0, logger=False, callbacks=[timer])
        trainer.fit(LitClassifier(), ClassificationDataModule())
        print(timer.timing)  # StepTiming(seconds=0.00105, steps=953, ...)

    Args:
        seconds: how long to time.
        clock: returns seconds.

    Attributes:
        timing: the result; None until it is complete.
    """

    once_per_execution = True

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.clock = seconds, clock
        self.begun = self.started = 0.0
        self.first = 0
        self.timing: StepTiming | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = self.clock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.started and self._is_warm(trainer, pl_module):
            self.first, self.started = trainer.global_step, self._now(trainer)
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.global_step - self.first
        if not self.started or self.timing or steps == 0 or self.clock() - self.started < self.seconds:
            return
        seconds = (self._now(trainer) - self.started) / steps
        memory = measure_memory(trainer, pl_module, batch)  # before more batches are made
        data_seconds = self._batch_seconds(trainer, steps) * trainer.accumulate_grad_batches
        self.timing = StepTiming(seconds, steps, data_seconds, memory)
        trainer.should_stop = True

    def _is_warm(self, trainer: Trainer, module: LightningModule) -> bool:
        if captures_steps(module):
            return trainer.current_epoch >= CAPTURE_EPOCHS
        steps = trainer.global_step
        return steps >= 3 and (steps >= WARMUP or self.clock() - self.begun > self.seconds / 2)

    def _now(self, trainer: Trainer) -> float:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()

    def _batch_seconds(self, trainer: Trainer, most: int) -> float:
        """Return the mean time to get a batch, over at most `most` batches of an epoch."""
        started = self._now(trainer)
        count = sum(1 for _ in itertools.islice(batches_from_start(trainer), most))
        return (self._now(trainer) - started) / count
