"""A training loop of plain PyTorch, whose settings can change in its midst: the yardstick of `resume_fuzz`.

Optimizers, schedules, the GradScaler and the averages of the weights are torch's own. Nothing of Lightning is used.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn

from mnist_amp.data.loader import Batch

BATCHES = 6  # of an epoch
DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "fp16-cpu": torch.float16}
EMA, SWA, STOPPING = "EMAWeightAveraging", "StochasticWeightAveraging", "EarlyStopping"
NEVER_BETTER = {"monitor": "train_loss", "min_delta": 99.0}
# No optimizer is fused, because fused optimizers round differently. A setting that is left out on resume is the
# checkpoint's, so each class always gets the same settings.
OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    "Adam": [{"lr": lr, "amsgrad": amsgrad, "fused": False} for lr in (0.001, 0.004) for amsgrad in (False, True)],
    "AdamW": [{"lr": 0.002, "weight_decay": decay, "fused": False} for decay in (0.01, 0.3)],
    "SGD": [{"lr": 0.1, "momentum": 0.5, "nesterov": nesterov, "fused": False} for nesterov in (False, True)],
    "RMSprop": [{"lr": 0.001, "alpha": alpha, "momentum": 0.5} for alpha in (0.99, 0.9)],
    "Adagrad": [{"lr": lr, "fused": False} for lr in (0.01, 0.02)],
}
# class, settings and interval; None for no schedule
SCHEDULES: list[tuple[str, dict[str, Any], str] | None] = [
    None,
    ("StepLR", {"step_size": 1, "gamma": 0.5}, "epoch"),
    ("StepLR", {"step_size": 4, "gamma": 0.7}, "step"),
    ("ExponentialLR", {"gamma": 0.9}, "step"),
    ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1}, "epoch"),
    ("MultiStepLR", {"milestones": [5, 9, 13], "gamma": 0.5}, "step"),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.0}, "epoch"),
    ("CosineAnnealingLR", {"T_max": 30, "eta_min": 1e-5}, "step"),
    ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2}, "step"),
    ("LinearLR", {"total_iters": 8}, "step"),
    ("PolynomialLR", {"total_iters": 4, "power": 2.0}, "epoch"),
    ("OneCycleLR", {"max_lr": 0.02, "total_steps": 24, "cycle_momentum": False}, "step"),
    ("OneCycleLR", {"max_lr": 0.01, "total_steps": 13, "cycle_momentum": False}, "step"),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.01, "step_size_up": 5, "cycle_momentum": False}, "step"),
]
CALLBACKS: list[tuple[str, dict[str, Any]] | None] = [
    *(None, None, None),
    *((EMA, {"decay": decay}) for decay in (0.9, 0.5)),
    *((SWA, {"swa_lrs": 0.01, "swa_epoch_start": start}) for start in (2, 3)),
    *((STOPPING, {**NEVER_BETTER, "patience": patience}) for patience in (1, 3)),
]
CHOICES: dict[str, list[Any]] = {
    "optimizer": [(name, settings) for name, all_settings in OPTIMIZERS.items() for settings in all_settings],
    "schedule": SCHEDULES,
    "callback": CALLBACKS,
    "precision": list(DTYPES),
    "clip": [None, None, 0.5],
    "accumulate": [1, 1, 2, 4],
    "max_epochs": [2, 3, 4, 5],
    "steps_per_execution": [1, 1, 3],
}


@dataclass(frozen=True)
class Settings:
    """Settings of a fit. Each has one of its values in CHOICES."""

    optimizer: tuple[str, dict[str, Any]]
    schedule: tuple[str, dict[str, Any], str] | None
    callback: tuple[str, dict[str, Any]] | None
    precision: str
    clip: float | None
    accumulate: int
    max_epochs: int
    steps_per_execution: int

    @classmethod
    def drawn(cls, source: Random) -> Self:
        return cls(**{name: source.choice(values) for name, values in CHOICES.items()})

    def changed(self, source: Random) -> Self:
        """Return these settings with up to three of them drawn again; mostly the optimizer keeps its class."""
        names = source.sample(list(CHOICES), source.randint(0, 3))
        other = replace(self, **{name: source.choice(CHOICES[name]) for name in names})
        kept = self.optimizer[0]
        if other.optimizer[0] != kept and source.random() < 0.8:
            return replace(other, optimizer=(kept, source.choice(OPTIMIZERS[kept])))
        return other

    def of(self, callback: str) -> dict[str, Any] | None:
        """Return the settings of a callback; None if the fit has none of this class."""
        return self.callback[1] if self.callback is not None and self.callback[0] == callback else None

    def averages_from(self) -> float:
        """Return the epoch, from 0, in which the stochastic average begins; infinity without one."""
        swa = self.of(SWA)
        return float("inf") if swa is None else float(swa["swa_epoch_start"] - 1)


def make_optimizer(settings: Settings, model: nn.Module) -> Optimizer:
    name, init_args = settings.optimizer
    made: Optimizer = getattr(torch.optim, name)(model.parameters(), **init_args)
    return made


@dataclass
class PlainLoop:
    """Trains a network on given batches.

    Attributes:
        settings: of now.
        model: the network.
        optimizer: keeps its state when the settings change.
        scaler: in fp16 only.
        average: the averaged weights; None without an average.
        swa: the schedule of a stochastic average that has begun.
        steps: optimizer steps that were taken.
        skipped: those of them that the scaler skipped.
        epoch: the current epoch, from 0.
        batch: batches of it that are done.
        since: the epoch in which the EarlyStopping began.
        ended: whether the EarlyStopping has ended the run.
    """

    settings: Settings
    model: nn.Module
    optimizer: Optimizer = field(init=False)
    scaler: torch.amp.GradScaler | None = None
    average: AveragedModel | None = None
    swa: SWALR | None = None
    steps: int = 0
    skipped: int = 0
    epoch: int = 0
    batch: int = 0
    since: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.settings, self.model)
        self._begin_precision()
        self._begin_average()

    def change(self, settings: Settings) -> None:
        """Continue with other settings. The optimizer keeps its state, and an average its weights."""
        before, self.settings, self.ended = self.settings, settings, False
        if self.swa is None:  # it keeps the optimizer
            state = self.optimizer.state_dict()["state"]
            self.optimizer = make_optimizer(settings, self.model)
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if settings.precision != before.precision:
            self._begin_precision()
        if (settings.callback or [None])[0] != (before.callback or [None])[0]:
            self.since = self.epoch
            self._begin_average()
        elif self.average is not None and (ema := settings.of(EMA)) is not None:
            self.average.avg_fn = get_ema_avg_fn(ema["decay"])  # type: ignore[no-untyped-call]

    def run(self, batches: dict[int, list[Batch]], until: int | None = None) -> None:
        """Train until a number of optimizer steps, or to the end.

        Args:
            batches: of each epoch.
            until: the number of steps; None for the end.
        """
        while self.epoch < self.settings.max_epochs and not self.ended and self.steps != until:
            if self.batch == 0 and self.epoch >= self.settings.averages_from():
                self._average_stochastically()
            self._micro_batch(batches[self.epoch][self.batch])
            self.batch += 1
            if self.batch == BATCHES:
                self._end_epoch()

    def rates(self) -> dict[str, Any]:
        """Return the optimizer's settings at this step, in a run that has had the settings of now from its start."""
        optimizer = make_optimizer(self.settings, nn.Linear(1, 1))
        if self.settings.schedule is not None:
            name, init_args, interval = self.settings.schedule
            schedule: LRScheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **init_args)
            for _ in range(self.epoch if interval == "epoch" else self.steps - self.skipped):
                optimizer.step()
                schedule.step()
        return {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}

    def _begin_precision(self) -> None:
        self.scaler = torch.amp.GradScaler("cpu") if self.settings.precision == "fp16-cpu" else None

    def _begin_average(self) -> None:
        self.average = self.swa = None
        if (ema := self.settings.of(EMA)) is not None:
            self.average = AveragedModel(self.model, avg_fn=get_ema_avg_fn(ema["decay"]))  # type: ignore[no-untyped-call]

    def _average_stochastically(self) -> None:
        """Average the weights with which an epoch begins; the first time, begin the schedule of the average."""
        swa = self.settings.of(SWA)
        assert swa is not None
        if self.swa is None:
            self.average = AveragedModel(self.model)
            for group in self.optimizer.param_groups:
                group.update(self.rates(), initial_lr=swa["swa_lrs"])
            self.swa = SWALR(self.optimizer, swa["swa_lrs"], last_epoch=1)
        assert self.average is not None
        self.average.update_parameters(self.model)

    def _micro_batch(self, batch: Batch) -> None:
        dtype = DTYPES[self.settings.precision]
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(self.model(batch.images), batch.labels) / self.settings.accumulate
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
        if (self.batch + 1) % self.settings.accumulate == 0 or self.batch + 1 == BATCHES:
            self._step()

    def _step(self) -> None:
        for group in self.optimizer.param_groups if self.swa is None else []:
            group.update(self.rates())
        if self.settings.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.skipped += self.scaler.get_scale() < before
        self.optimizer.zero_grad()
        self.steps += 1
        if self.average is not None and self.swa is None:
            self.average.update_parameters(self.model)

    def _end_epoch(self) -> None:
        if self.swa is not None:
            self.swa.step()
        self.epoch, self.batch = self.epoch + 1, 0
        if (stopping := self.settings.of(STOPPING)) is not None:
            self.ended = self.epoch - self.since > stopping["patience"]
