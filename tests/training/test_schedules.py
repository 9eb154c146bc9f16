"""Schedules: made from plain values, advanced to a step, measured against the run's length."""

import math
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import instantiate_class

from mnist_amp.training.resume_overrides import override_optimizer_state
from mnist_amp.training.schedules import last_step, make_schedule, turning_point

STEPS = 12
Settings = dict[str, Any]


def schedule(name: str, **init_args: Any) -> Settings:
    return {"class_path": f"torch.optim.lr_scheduler.{name}", "init_args": init_args}


SGD: Settings = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
ADAM: Settings = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}}
WARM_UP = schedule("LinearLR", start_factor=0.1, total_iters=3)
# for each class, two settings that differ in every setting
SCHEDULES: dict[str, tuple[Settings | None, Settings | None]] = {
    "none": (None, None),
    "StepLR": (schedule("StepLR", step_size=2, gamma=0.5), schedule("StepLR", step_size=3, gamma=0.1)),
    "MultiStepLR": (
        schedule("MultiStepLR", milestones=[1], gamma=0.5),
        schedule("MultiStepLR", milestones=[2, 3, 8], gamma=0.1),
    ),
    "ConstantLR": (
        schedule("ConstantLR", factor=0.5, total_iters=2),
        schedule("ConstantLR", factor=0.1, total_iters=9),
    ),
    "LinearLR": (
        schedule("LinearLR", start_factor=0.5, end_factor=0.9, total_iters=2),
        schedule("LinearLR", start_factor=0.1, end_factor=1.0, total_iters=9),
    ),
    "ExponentialLR": (schedule("ExponentialLR", gamma=0.9), schedule("ExponentialLR", gamma=0.8)),
    "PolynomialLR": (
        schedule("PolynomialLR", total_iters=3, power=1.0),
        schedule("PolynomialLR", total_iters=11, power=2.0),
    ),
    "CosineAnnealingLR": (
        schedule("CosineAnnealingLR", T_max=2, eta_min=0.0),
        schedule("CosineAnnealingLR", T_max=12, eta_min=1e-5),
    ),
    "CosineAnnealingWarmRestarts": (
        schedule("CosineAnnealingWarmRestarts", T_0=2, T_mult=1, eta_min=0.0),
        schedule("CosineAnnealingWarmRestarts", T_0=3, T_mult=2, eta_min=1e-5),
    ),
    "CyclicLR": (
        schedule("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=2, mode="triangular"),
        schedule("CyclicLR", base_lr=0.02, max_lr=0.3, step_size_up=5, step_size_down=2, mode="triangular2"),
    ),
    "OneCycleLR": (
        schedule("OneCycleLR", max_lr=0.1, total_steps=8, pct_start=0.3),
        schedule("OneCycleLR", max_lr=0.3, total_steps=16, pct_start=0.5, anneal_strategy="linear", three_phase=True),
    ),
    "SequentialLR": (
        schedule("SequentialLR", schedulers=[WARM_UP, schedule("ExponentialLR", gamma=0.9)], milestones=[3]),
        schedule("SequentialLR", schedulers=[WARM_UP, schedule("CosineAnnealingLR", T_max=9)], milestones=[5]),
    ),
    "ChainedScheduler": (
        schedule("ChainedScheduler", schedulers=[WARM_UP, schedule("ExponentialLR", gamma=0.9)]),
        schedule("ChainedScheduler", schedulers=[schedule("ConstantLR"), schedule("ExponentialLR", gamma=0.8)]),
    ),
}


class TrainingRun:
    """Plain PyTorch: an optimizer and a schedule that take turns, with the checkpoint that Lightning would write."""

    def __init__(self, optimizer: Settings, schedule: Settings | None, interval: str = "step") -> None:
        self.settings = optimizer, schedule, interval
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.optimizer = instantiate_class([self.weight], optimizer)
        self.schedule = None if schedule is None else make_schedule(self.optimizer, schedule)
        self.steps = 0

    def train(self, steps: int) -> list[dict[str, Any]]:
        """Take steps; return the optimizer's settings in each."""
        seen = []
        for _ in range(steps):
            seen.append({key: value for key, value in self.optimizer.param_groups[0].items() if key != "params"})
            self.weight.grad = torch.full((1,), 0.5)
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            self.steps += 1
        return seen

    def checkpoint(self) -> dict[str, Any]:
        epochs, batches = {"current": {"ready": self.steps}}, {"is_last_batch": True}
        return {
            "hyper_parameters": dict(
                zip(("optimizer", "lr_scheduler", "lr_scheduler_interval"), self.settings, strict=True)
            ),
            "global_step": self.steps,
            "loops": {"fit_loop": {"epoch_progress": epochs, "epoch_loop.batch_progress": batches}},
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [] if self.schedule is None else [self.schedule.state_dict()],
        }

    def resume(self, checkpoint: dict[str, Any]) -> None:
        override_optimizer_state(checkpoint, *self.settings)
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        for schedule, state in zip([self.schedule] if self.schedule else [], checkpoint["lr_schedulers"], strict=True):
            schedule.load_state_dict(state)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [0, 1, 4, 7])
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("now", SCHEDULES)
@pytest.mark.parametrize("before", SCHEDULES)
def test_an_overridden_schedule_gives_the_rates_of_a_run_that_had_it_from_its_start(
    before: str, now: str, interval: str, step: int
) -> None:
    expected = TrainingRun(SGD, SCHEDULES[now][1], interval).train(STEPS)
    first = TrainingRun(SGD, SCHEDULES[before][0], interval)
    first.train(step)
    resumed = TrainingRun(SGD, SCHEDULES[now][1], interval)
    resumed.resume(first.checkpoint())
    assert resumed.train(STEPS - step) == expected[step:]


@pytest.mark.parametrize(
    "name", [name for name in SCHEDULES if name not in ("none", "SequentialLR", "ChainedScheduler")]
)
def test_each_setting_of_a_schedule_can_be_overridden(name: str) -> None:
    before, other = SCHEDULES[name]
    assert before is not None
    assert other is not None
    for setting in other["init_args"]:
        now = schedule(name, **before["init_args"] | {setting: other["init_args"][setting]})
        steps = 8 if name == "OneCycleLR" else STEPS
        expected = TrainingRun(SGD, now).train(steps)
        first = TrainingRun(SGD, before)
        first.train(4)
        resumed = TrainingRun(SGD, now)
        resumed.resume(first.checkpoint())
        assert resumed.train(steps - 4) == expected[4:], setting


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_overridden_learning_rate_acts_as_in_a_run_that_began_with_it(name: str, optimizer: Settings) -> None:
    faster: Settings = {**optimizer, "init_args": {**optimizer["init_args"], "lr": 0.03, "weight_decay": 0.1}}
    options = SCHEDULES[name][1]
    if name == "CyclicLR" and options is not None and "momentum" not in optimizer["init_args"]:
        options = {**options, "init_args": options["init_args"] | {"cycle_momentum": False}}
    expected = TrainingRun(faster, options).train(STEPS)
    first = TrainingRun(optimizer, options)
    first.train(5)
    resumed = TrainingRun(faster, options)
    resumed.resume(first.checkpoint())
    assert resumed.train(STEPS - 5) == expected[5:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_same_settings_leave_a_checkpoint_as_it_is(name: str) -> None:
    first = TrainingRun(SGD, SCHEDULES[name][1])
    first.train(5)
    first.optimizer.param_groups[0]["lr"] = 0.12345  # a rate that no schedule gives
    resumed = TrainingRun(SGD, SCHEDULES[name][1])
    resumed.resume(first.checkpoint())
    assert resumed.optimizer.param_groups[0]["lr"] == 0.12345


def plateau(**init_args: Any) -> Settings:
    return {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss", **init_args}}


def on_plateau(run: TrainingRun, losses: list[float]) -> list[float]:
    rates = []
    for loss in losses:
        run.schedule.step(loss)  # type: ignore[union-attr,arg-type]
        run.steps += 1
        rates.append(run.optimizer.param_groups[0]["lr"])
    return rates


def test_a_plateau_keeps_what_it_has_seen_and_its_new_settings_hold() -> None:
    first = TrainingRun(SGD, plateau(patience=1, factor=0.5), "epoch")
    assert on_plateau(first, [1.0, 2.0, 2.0, 2.0]) == [0.1, 0.1, 0.05, 0.05]
    resumed = TrainingRun(SGD, plateau(patience=3, factor=0.1), "epoch")
    resumed.resume(first.checkpoint())
    # one bad epoch so far, and the best loss is 1
    assert on_plateau(resumed, [1.5, 1.5, 1.5, 0.5]) == pytest.approx([0.05, 0.05, 0.005, 0.005])


def test_a_plateau_keeps_its_reductions_when_the_learning_rate_is_overridden() -> None:
    first = TrainingRun(SGD, plateau(patience=0, factor=0.5), "epoch")
    on_plateau(first, [1.0, 2.0])
    faster = {**SGD, "init_args": {**SGD["init_args"], "lr": 0.4}}
    resumed = TrainingRun(faster, plateau(patience=0, factor=0.5), "epoch")
    resumed.resume(first.checkpoint())
    assert on_plateau(resumed, [0.5]) == [0.2]


def test_a_plateau_in_the_other_mode_begins_again() -> None:
    first = TrainingRun(SGD, plateau(mode="min", patience=0), "epoch")
    on_plateau(first, [0.1])
    resumed = TrainingRun(SGD, plateau(mode="max", patience=0), "epoch")
    resumed.resume(first.checkpoint())
    assert on_plateau(resumed, [0.2, 0.3]) == [0.1, 0.1]


COSINE = schedule("CosineAnnealingLR", T_max=4)
ONE_CYCLE = schedule("OneCycleLR", max_lr=0.1, total_steps=6)


def sequence(first: Settings, second: Settings, milestone: int) -> Settings:
    return schedule("SequentialLR", schedulers=[first, second], milestones=[milestone])


@pytest.mark.parametrize(
    ("options", "end", "rises"),
    [
        (schedule("StepLR", step_size=2), math.inf, None),
        (ONE_CYCLE, 6, None),
        (COSINE, math.inf, 4),
        (schedule("CosineAnnealingLR", T_max=12), math.inf, None),
        (sequence(WARM_UP, schedule("CosineAnnealingLR", T_max=9), 3), math.inf, None),
        (sequence(WARM_UP, COSINE, 3), math.inf, 7),
        (sequence(COSINE, WARM_UP, 4), math.inf, None),
        (sequence(WARM_UP, ONE_CYCLE, 3), 9, None),
        (sequence(ONE_CYCLE, WARM_UP, 5), math.inf, None),
        (schedule("ChainedScheduler", schedulers=[WARM_UP, COSINE]), math.inf, 4),
    ],
)
def test_where_a_schedule_ends_and_where_its_rate_rises_again(options: Settings, end: float, rises: int | None) -> None:
    with warnings.catch_warnings(action="ignore"):
        made = make_schedule(instantiate_class([torch.nn.Parameter(torch.ones(1))], SGD), options)
    assert last_step(made) == end
    assert turning_point(made, STEPS) == rises


def test_a_plateau_that_follows_another_metric_begins_again() -> None:
    first = TrainingRun(SGD, plateau(monitor="train_loss", patience=0), "epoch")
    on_plateau(first, [0.01])
    resumed = TrainingRun(SGD, plateau(monitor="val_loss", patience=0), "epoch")
    resumed.resume(first.checkpoint())
    assert on_plateau(resumed, [0.3, 0.2]) == [0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (schedule("StepLR", step_size=2, last_epoch=3), "last_epoch of StepLR must be -1"),
        (schedule("ReduceLROnPlateau", patience=1), "give lightning.pytorch.cli.ReduceLROnPlateau"),
        (sequence(WARM_UP, sequence(WARM_UP, COSINE, 2), 3), "only the first schedule of a SequentialLR can be"),
        (sequence(WARM_UP, schedule("ChainedScheduler", schedulers=[COSINE]), 3), "only the first schedule of a"),
    ],
)
def test_schedules_that_torch_fails_on_later_are_refused(options: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make_schedule(instantiate_class([torch.nn.Parameter(torch.ones(1))], SGD), options)
