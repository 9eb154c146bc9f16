"""Settings of the optimizer and of its schedule that the user overrides on resume, written to the checkpoint's state.

Optimizers and schedules load their settings with their state, which would override what the user asks for now.
"""

from typing import Any

from mnist_amp.runs import checkpoint_contents
from mnist_amp.training.averaged_weights import SWA, Begun
from mnist_amp.training.optimizers import ADAM
from mnist_amp.training.schedules import Settings, advance, is_plateau, keep_plateau_progress, steps_taken


def override_optimizer_state(
    checkpoint: dict[str, Any],
    optimizer: Settings,
    lr_scheduler: Settings | None,
    interval: str,
    *,
    counts_skipped: bool = False,
) -> None:
    """Change a checkpoint's optimizer and schedule states in place to the settings of now.

    Where a setting differs from the checkpoint's, the optimizer's groups and the schedule become those of a run that
    had the settings of now from its start. Otherwise they stay as they are, to the bit. A ReduceLROnPlateau keeps what
    it has learned from the metrics, and its new settings hold from now on.

    Args:
        checkpoint: as Lightning hands it to `on_load_checkpoint`.
        optimizer: class_path and init_args of the optimizer of now.
        lr_scheduler: class_path and init_args of the schedule of now; None for none.
        interval: whether it advances every `epoch` or every optimizer `step`.
        counts_skipped: whether it also advances on an optimizer step that the GradScaler skips.

    Raises:
        ValueError: the schedule of now has ended by then, or an average of the weights sets the learning rate.
    """
    saved = checkpoint.get("hyper_parameters", {})
    before: Settings = {"init_args": {}, **(saved.get("optimizer") or ADAM)}
    groups = [group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]]
    if not groups:
        return  # weights without the optimizer's state, which can still be evaluated
    if _same_schedule(saved, lr_scheduler, interval) and _equal(_user_settings(before), _user_settings(optimizer)):
        for group in groups:
            if "fused" in group:
                group["fused"] = optimizer["init_args"].get("fused")
        return
    if Begun.of(checkpoint) is not None:
        raise ValueError(
            f"{SWA} sets the learning rate of this run already, so no setting of the optimizer or of its schedule can "
            "be changed. Leave it out, or resume from a checkpoint of an earlier epoch."
        )
    steps = 0 if lr_scheduler is None or is_plateau(lr_scheduler) else _steps(checkpoint, interval, counts_skipped)
    advanced = advance(optimizer, len(groups), lr_scheduler, steps)
    old, schedule = checkpoint.get("lr_schedulers"), advanced.schedule
    if old and schedule and is_plateau(saved.get("lr_scheduler")) and is_plateau(lr_scheduler):
        rates = [group["lr"] * _ratio(before, optimizer) for group in groups]
        schedule = {**keep_plateau_progress(schedule, old[0]), "_last_lr": rates}
    else:
        rates = [group["lr"] for group in advanced.groups]
    _replace_settings(groups, advanced.groups, rates)
    checkpoint["lr_schedulers"] = [] if schedule is None else [schedule]


def _replace_settings(groups: list[dict[str, Any]], new: list[dict[str, Any]], rates: list[float]) -> None:
    for group, settings, rate in zip(groups, new, rates, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(settings, lr=rate, params=parameters)


def _same_schedule(saved: dict[str, Any], lr_scheduler: Settings | None, interval: str) -> bool:
    same_interval = lr_scheduler is None or interval == saved.get("lr_scheduler_interval", "epoch")
    return same_interval and _equal(saved.get("lr_scheduler"), lr_scheduler)


def _steps(checkpoint: dict[str, Any], interval: str, counts_skipped: bool) -> int:
    """Return how many steps a schedule with this interval would have taken by now."""
    saved, states = checkpoint.get("hyper_parameters", {}), checkpoint.get("lr_schedulers")
    same_interval = saved.get("lr_scheduler_interval", "epoch") == interval
    if states and same_interval and not is_plateau(saved.get("lr_scheduler")):
        return steps_taken(states[0])
    if interval == "epoch":
        return checkpoint_contents.progress(checkpoint).epochs
    skipped = 0 if counts_skipped else checkpoint.get("MixedPrecision", {}).get("skipped", 0)
    return int(checkpoint["global_step"] - skipped)


def _equal(before: Any, now: Any) -> bool:
    """Whether two settings are the same; a file has lists where Python has tuples."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_equal(before[key], now[key]) for key in now)
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_equal, before, now))
    return bool(before == now)


def _user_settings(optimizer: Settings) -> dict[str, Any]:
    """Return the class and its settings except `fused`, which this project chooses, and which changes no result."""
    settings = {key: value for key, value in optimizer["init_args"].items() if key != "fused"}
    return {"class_path": optimizer["class_path"], "init_args": settings}


def _ratio(before: Settings, now: Settings) -> float:
    old, new = before["init_args"].get("lr"), now["init_args"].get("lr")
    return float(new / old) if old and new else 1.0
