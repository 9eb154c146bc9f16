"""Learning-rate schedules: made from plain values, measured against the run's length, and advanced to a step.

torch's schedules are recursions on the current learning rate. If a setting is changed in a loaded state, the rates
become 0 or climb a second time, or an IndexError ends the run. So a schedule whose settings are overridden is made
again and advanced from its start. The rates are then those of a run that had these settings from its first step.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LRScheduler, OneCycleLR, SequentialLR

from mnist_amp.torch_internals import inner_schedules, milestones_of

Settings = dict[str, Any]  # class_path and init_args

# state of a ReduceLROnPlateau that comes from the metrics it has seen, and not from its settings
PLATEAU_PROGRESS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")


class Advanced(NamedTuple):
    """An optimizer's parameter groups, without `params`, and its schedule's state (None without a schedule)."""

    groups: list[dict[str, Any]]
    schedule: dict[str, Any] | None


class Segment(NamedTuple):
    """A schedule, and the steps of the run from which and before which it sets the rate."""

    schedule: Any
    start: float
    end: float


def annotate_nested_schedules() -> None:
    """Let jsonargparse read the schedules in a SequentialLR or a ChainedScheduler from class_path and init_args.

    torch annotates them as schedules that exist already, which would need an optimizer in the config file.
    """
    for schedule in (SequentialLR, ChainedScheduler):
        schedule.__init__.__annotations__["schedulers"] = list[Callable[[Optimizer], LRScheduler]]


def make_schedule(optimizer: Optimizer, settings: Settings) -> LRScheduler | ReduceLROnPlateau:
    """Make a schedule, with the schedules inside of a SequentialLR or a ChainedScheduler.

    Args:
        optimizer: its learning rates are set.
        settings: class_path and init_args.

    Raises:
        ValueError, TypeError: the schedule does not take these settings.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> module = "torch.optim.lr_scheduler"
        >>> warm_up = {"class_path": f"{module}.LinearLR", "init_args": {"start_factor": 0.1, "total_iters": 2}}
        >>> decay = {"class_path": f"{module}.CosineAnnealingLR", "init_args": {"T_max": 8}}
        >>> both = {"schedulers": [warm_up, decay], "milestones": [2]}
        >>> schedule = make_schedule(optimizer, {"class_path": f"{module}.SequentialLR", "init_args": both})
        >>> schedule.get_last_lr()
        [0.010000000000000002]
    """
    init_args = dict(settings.get("init_args", {}))
    _check(settings["class_path"], init_args)
    if "schedulers" in init_args:
        init_args["schedulers"] = [make_schedule(optimizer, part) for part in init_args["schedulers"]]
    if settings["class_path"] == "torch.optim.lr_scheduler.ChainedScheduler":
        return ChainedScheduler(**init_args, optimizer=optimizer)  # the only schedule whose optimizer comes second
    made: LRScheduler | ReduceLROnPlateau = instantiate_class(optimizer, {**settings, "init_args": init_args})
    return made


def _check(class_path: str, init_args: Settings) -> None:
    """Refuse what torch takes, and fails on later or ignores."""
    name = class_path.rpartition(".")[2]
    if init_args.get("last_epoch", -1) != -1:
        raise ValueError(f"last_epoch of {name} must be -1, because a resumed run sets it by itself")
    if is_plateau({"class_path": class_path}) and "monitor" not in init_args:
        raise ValueError("give lightning.pytorch.cli.ReduceLROnPlateau, which has a monitor, instead of torch's class")
    later = [part["class_path"].rpartition(".")[2] for part in init_args.get("schedulers", [])[1:]]
    if name == "SequentialLR" and {"SequentialLR", "ChainedScheduler"} & set(later):
        raise ValueError(
            "only the first schedule of a SequentialLR can be a SequentialLR or a ChainedScheduler, because torch "
            "can't start these at a milestone; put their schedules into the outer list"
        )


def is_plateau(settings: Settings | None) -> bool:
    """Whether a schedule is a ReduceLROnPlateau, which follows a metric and not a number of steps."""
    return settings is not None and settings["class_path"].rpartition(".")[2] == "ReduceLROnPlateau"


def advance(optimizer: Settings, groups: int, schedule: Settings | None, steps: int) -> Advanced:
    """Return what an optimizer and its schedule hold after `steps` steps of the schedule from its start.

    Args:
        optimizer: class_path and init_args.
        groups: number of the optimizer's parameter groups.
        schedule: class_path and init_args; None for a constant learning rate.
        steps: of the schedule, which are optimizer steps or epochs. A ReduceLROnPlateau takes none: it needs metrics.

    Raises:
        ValueError: the schedule ends before.
    """
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1, 1))]} for _ in range(groups)]
    made: Optimizer = instantiate_class(parameters, optimizer)
    state = None
    if schedule is not None:
        scheduler = make_schedule(made, schedule)
        if not isinstance(scheduler, ReduceLROnPlateau):
            with warnings.catch_warnings(action="ignore"):  # the optimizer takes no steps in between
                for _ in range(steps):
                    scheduler.step()
        state = copy.deepcopy(scheduler.state_dict())
    without = [{key: value for key, value in group.items() if key != "params"} for group in made.param_groups]
    return Advanced(without, state)


def keep_plateau_progress(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a ReduceLROnPlateau with new settings, which keeps what it has learned from the metrics."""
    if any(new.get(setting) != old.get(setting) for setting in ("mode", "monitor")):
        return new  # the best value so far is that of another metric, or the worst of the other mode
    return {**new, **{key: old[key] for key in PLATEAU_PROGRESS if key in old}}


def steps_taken(state: dict[str, Any]) -> int:
    """Return how many steps a schedule has taken, from its state."""
    return int(state["last_epoch"]) if "last_epoch" in state else steps_taken(state["_schedulers"][0])


def segments(schedule: Any, start: float = 0, end: float = math.inf) -> Iterator[Segment]:
    """Yield a schedule, or the schedules inside of it, with the steps between which each sets the rate."""
    parts = inner_schedules(schedule)
    if not parts:
        yield Segment(schedule, start, end)
        return
    inner = [start + milestone for milestone in milestones_of(schedule)]
    borders = [start, *inner, end] if isinstance(schedule, SequentialLR) else []
    for number, part in enumerate(parts):
        yield from segments(part, *(borders[number : number + 2] or (start, end)))


def last_step(schedule: Any) -> float:
    """Return the last step that a schedule can take; infinity if it never ends."""
    ends = [part.start + part.schedule.total_steps for part in segments(schedule) if _ends(part)]
    return min(ends, default=math.inf)


def turning_point(schedule: Any, steps: float) -> int | None:
    """Return the step at which a cosine has brought the rate down, if it rises again within `steps` steps."""
    for part in segments(schedule):
        if isinstance(part.schedule, CosineAnnealingLR) and part.start + part.schedule.T_max < min(part.end, steps):
            return int(part.start + part.schedule.T_max)
    return None


def _ends(part: Segment) -> bool:
    return isinstance(part.schedule, OneCycleLR) and part.start + part.schedule.total_steps < part.end
