"""A training loop of plain PyTorch, whose settings can change in its midst: the yardstick of `resume_fuzz`.

Optimizers, schedules, the GradScaler and the averages of the weights are torch's own. Nothing of Lightning is used.
"""

import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn

from mnist_amp.data.loader import Batch

IMAGES = 384  # of an epoch
DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "fp16-cpu": torch.float16}
EMA, SWA, STOPPING = "EMAWeightAveraging", "StochasticWeightAveraging", "EarlyStopping"
ACCUMULATION = "GradientAccumulationScheduler"
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
    *((ACCUMULATION, {"scheduling": scheduling}) for scheduling in ({1: 3}, {0: 2, 2: 1})),
]
CHOICES: dict[str, list[Any]] = {
    "optimizer": [(name, settings) for name, all_settings in OPTIMIZERS.items() for settings in all_settings],
    "schedule": SCHEDULES,
    "callback": CALLBACKS,
    "precision": list(DTYPES),
    "clip": [None, None, 0.5],
    "accumulate": [1, 1, 1, 2, 4],
    "batch_size": [64, 64, 64, 32, 100, 500],
    "max_epochs": [2, 3, 4, 5],
    "steps_per_execution": [1, 1, 3],
    "log_every_n_steps": [1, 1, 3],
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
    batch_size: int
    max_epochs: int
    steps_per_execution: int
    log_every_n_steps: int

    @classmethod
    def drawn(cls, source: Random) -> Self:
        return cls(**{name: source.choice(values) for name, values in CHOICES.items()})

    def changed(self, source: Random) -> Self:
        """Return these settings with up to four of them drawn again; mostly the optimizer keeps its class."""
        names = source.sample(list(CHOICES), source.randint(0, 4))
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

    def batches_of_step(self, epoch: int) -> int:
        """Return the number of batches whose gradients are accumulated for an optimizer step of an epoch."""
        scheduling = (self.of(ACCUMULATION) or {}).get("scheduling", {})
        return int(
            scheduling.get(max((begin for begin in scheduling if begin <= epoch), default=None), self.accumulate)
        )

    def batches(self, done: int = 0) -> int:
        """Return the number of batches of an epoch, without its first `done` images."""
        return math.ceil((IMAGES - done) / self.batch_size)

    def place(self, done: int) -> int:
        """Return how many batches come before the next one. The batches end with the epoch."""
        return self.batches() - self.batches(done)

    def steps(self, epoch: int, done: int = 0) -> int:
        """Return the number of optimizer steps of an epoch, without its first `done` images."""
        return math.ceil(self.batches() / self.batches_of_step(epoch)) - self.place(done) // self.batches_of_step(epoch)

    def steps_until_end(self, epoch: int = 0, done: int = 0) -> int:
        """Return the number of optimizer steps that are left after whole epochs and `done` images."""
        return self.steps(epoch, done) + sum(map(self.steps, range(epoch + 1, self.max_epochs)))


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
        done: images of it that are done.
        since: the epoch in which the EarlyStopping began.
        ended: whether the EarlyStopping has ended the run.
        means: of each batch of this epoch, or of the newest one that has ended: loss, correct guesses, images.
        history: of each epoch: its number, the steps at its end, and its mean loss.
        logged: the loss of each step that has a log row, by the steps before it.
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
    done: int = 0
    since: int = 0
    ended: bool = False
    means: list[list[float]] = field(default_factory=list)
    history: list[tuple[int, int, float]] = field(default_factory=list)
    logged: dict[int, float] = field(default_factory=dict)

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

    def run(self, epochs: list[Batch], until: int | None = None) -> None:
        """Train until a number of optimizer steps, or to the end.

        Args:
            epochs: the images of each epoch.
            until: the number of steps; None for the end.
        """
        while self.epoch < self.settings.max_epochs and not self.ended and self.steps != until:
            if self.done == 0:
                self._begin_epoch()
            begin, self.done = self.done, min(self.done + self.settings.batch_size, IMAGES)
            self._micro_batch(*(part[begin : self.done] for part in epochs[self.epoch][:2]))
            if self.done == IMAGES:
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

    def _begin_epoch(self) -> None:
        self.means = []
        if self.epoch >= self.settings.averages_from():
            self._average_stochastically()

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

    def _micro_batch(self, images: Tensor, labels: Tensor) -> None:
        number, dtype = self.settings.batches_of_step(self.epoch), DTYPES[self.settings.precision]
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels)
        self.means.append([loss.item(), int((logits.argmax(dim=1) == labels).sum()), len(labels)])
        loss = loss / number
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
        if self.settings.place(self.done) % number == 0 or self.done == IMAGES:
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
        if self.steps % self.settings.log_every_n_steps == 0:
            self.logged[self.steps - 1] = self.means[-1][0]
        if self.average is not None and self.swa is None:
            self.average.update_parameters(self.model)

    def _end_epoch(self) -> None:
        if self.swa is not None:
            self.swa.step()
        mean = torch.tensor(math.fsum(loss * count for loss, _, count in self.means) / IMAGES)
        self.history.append((self.epoch, self.steps, mean.item()))
        self.epoch, self.done = self.epoch + 1, 0
        if (stopping := self.settings.of(STOPPING)) is not None:
            self.ended = self.epoch - self.since > stopping["patience"]
