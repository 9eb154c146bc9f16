"""Settings of the optimizer and its schedule that are overridden on resume, put into the state of a checkpoint.

Optimizers and schedules load their settings with their state, and so would override what the user asks for now.
"""

from typing import Any

from mnist_amp.training.optimizers import ADAM


def override_optimizer_state(
    checkpoint: dict[str, Any], optimizer: dict[str, Any], lr_scheduler: dict[str, Any] | None
) -> None:
    """Change a checkpoint's optimizer and schedule states in place to the settings that differ from the checkpoint's.

    A learning rate keeps the factor that the schedule has brought it to.

    Args:
        checkpoint: as Lightning hands it to `on_load_checkpoint`.
        optimizer: class_path and init_args of the optimizer of now.
        lr_scheduler: class_path and init_args of the schedule of now; None for none.
    """
    before = (checkpoint["hyper_parameters"].get("optimizer") or ADAM).get("init_args", {})
    now = optimizer["init_args"]
    changed = {key: value for key, value in now.items() if before.get(key, value) != value}
    new, old = changed.pop("lr", None), before.get("lr")
    groups = [group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]]
    for group in groups:
        group.update({key: value for key, value in changed.items() if key in group})
        if "fused" in group:
            group["fused"] = now.get("fused")  # depends on clipping, which is not a setting of the optimizer
    schedules = checkpoint.get("lr_schedulers", [])
    for schedule in schedules:
        changes = _schedule_changes(checkpoint, lr_scheduler)
        schedule.update({key: value for key, value in changes.items() if key in schedule})
    if new is not None and old:
        for state in (*groups, *schedules):
            _rescale(state, old, new)


def _schedule_changes(checkpoint: dict[str, Any], now: dict[str, Any] | None) -> dict[str, Any]:
    before = checkpoint["hyper_parameters"].get("lr_scheduler")
    if not before or not now:
        return {}
    return {key: value for key, value in now["init_args"].items() if before["init_args"].get(key) != value}


def _rescale(state: dict[str, Any], old: float, new: float) -> None:
    """Replace the base learning rate in the state of an optimizer's group or of a schedule."""

    def rescaled(rate: float) -> float:
        return new if rate == old else rate * new / old

    for key in ("lr", "initial_lr"):
        if key in state:
            state[key] = rescaled(state[key])
    for key in ("base_lrs", "_last_lr"):
        if key in state:
            state[key] = [rescaled(rate) for rate in state[key]]
