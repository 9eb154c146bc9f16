"""A callback that times training steps of any module."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from mnist_amp.lightning_internals import FURTHER_BATCH_ACTION, NEXT_BATCH_ACTION, VALIDATION_ACTIONS
from mnist_amp.measuring.measured_fit import make_endless
from mnist_amp.measuring.module_access import captures_steps

WARMUP = 20  # steps; fewer if they take half of the time that is measured
CAPTURE_EPOCHS = 3  # after these, each CUDA graph is captured


@dataclass(frozen=True)
class StepTiming:
    """The result of a `StepTimer`.

    Attributes:
        seconds: mean time of a step, with the loop around it.
        steps: number of steps that were timed.
        waiting_seconds: the part of it in which the host waited for the batches of a step.
    """

    seconds: float
    steps: int
    waiting_seconds: float


class StepTimer(Callback):
    """Times training steps after a warm-up, and then stops the fit.

    A step is an optimizer step; in manual optimization, it is a batch. The time of an epoch is that from its first
    request for a batch to its last step, so validation and the start of a DataLoader's workers are not in it. The fit
    must not end before the time is up, so give the Trainer no limits::

        timer = StepTimer(seconds=1.0)
        trainer = Trainer(max_epochs=-1, limit_val_batches=0, logger=False, callbacks=[timer])
        trainer.fit(LitClassifier(), ClassificationDataModule())
        print(timer.timing)  # StepTiming(seconds=0.00105, steps=953, waiting_seconds=4.1e-05)

    Args:
        seconds: how long to time.
        clock: returns seconds.

    Attributes:
        timing: the result; None until it is complete.
    """

    once_per_execution = True

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.clock = seconds, clock
        self.begun = self.spent = self.waited = 0.0
        self.batches = self.first_step = 0  # batches, and the step at the last start of the clock
        self.received_batches = 0  # of the whole fit
        self.steps = 0.0
        self.started: float | None = None  # the clock, if it runs
        self.timing: StepTiming | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.module, self.begun = trainer, pl_module, self.clock()
        make_endless(trainer)
        trainer.profiler = _Requests(self)  # type: ignore[attr-defined]

    def request(self) -> None:
        """Called when the training loop requests a batch, so between two batches."""
        if self.timing is not None:
            return
        running = 0.0 if self.started is None else self.clock() - self.started
        if self.spent + running >= self.seconds and self.steps + running > 0:
            self.pause()
            self._finish()
        elif self.started is None and self._is_warm():
            self.started, self.first_step, self.batches = self._now(), self.trainer.global_step, 0

    def received(self, asked: float) -> None:
        """Called when the training loop has got a batch that it requested at a time."""
        self.received_batches += 1
        if self.started is not None:
            self.waited += self.clock() - asked
            self.batches += 1

    def pause(self) -> None:
        """Stop the clock between two batches, or at the end of an epoch."""
        if self.started is not None:
            self.spent += self._now() - self.started
            self.steps += self._steps_since_start()
            self.started = None

    def _finish(self) -> None:
        if self.steps > 0:
            self.timing = StepTiming(self.spent / self.steps, round(self.steps), self.waited / self.steps)
            self.trainer.should_stop = True

    def _steps_since_start(self) -> float:
        accumulated = self.trainer.accumulate_grad_batches
        if self.module.automatic_optimization and accumulated == 1:
            return self.trainer.global_step - self.first_step  # an execution takes several, but requests once
        return self.batches / accumulated

    def _is_warm(self) -> bool:
        if captures_steps(self.module):
            return self.trainer.current_epoch >= CAPTURE_EPOCHS
        # in manual optimization a module may use its optimizers without Lightning, which then counts no steps
        steps = self.trainer.global_step if self.module.automatic_optimization else self.received_batches
        return steps >= 3 and (steps >= WARMUP or self.clock() - self.begun > self.seconds / 2)

    def _now(self) -> float:
        if self.trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()


class _Requests(Profiler):
    """Passes Lightning's requests for batches to a timer, and the ends of epochs.

    The request for a further batch of an execution contains one of Lightning's own, and comes before the steps of the
    execution: it is waited for, but the clock neither starts nor stops there.
    """

    allows_direct_steps = True  # it needs no call within a step

    def __init__(self, timer: StepTimer) -> None:
        super().__init__()
        self.timer, self.asked = timer, 0.0
        self.is_further = False  # whether the request that runs is for a further batch

    def start(self, action_name: str) -> None:
        if action_name == FURTHER_BATCH_ACTION:
            self.is_further = True
        elif action_name == NEXT_BATCH_ACTION:
            if not self.is_further:
                self.timer.request()
            self.asked = self.timer.clock()
        elif action_name.rpartition(".")[2] in VALIDATION_ACTIONS:
            self.timer.pause()

    def stop(self, action_name: str) -> None:
        if action_name == FURTHER_BATCH_ACTION:
            self.is_further = False
        elif action_name == NEXT_BATCH_ACTION:
            self.timer.received(self.asked)
        elif action_name == "run_training_epoch":
            self.timer.pause()
