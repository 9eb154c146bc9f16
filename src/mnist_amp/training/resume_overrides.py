"""Settings of the optimizer and of its schedule that the user overrides on resume, written to the checkpoint's state.

Optimizers and schedules load their old settings with their state, which would undo what the user asks for now.
"""

from typing import Any

from mnist_amp.training.optimizers import ADAM


def override_optimizer_state(
    checkpoint: dict[str, Any], optimizer: dict[str, Any], lr_scheduler: dict[str, Any] | None
) -> None:
    """Override settings in the states of a checkpoint's optimizer and schedule, in place.

    Only the settings that differ from the checkpoint's hyperparameters are written. A learning rate that a schedule has
    changed is scaled by the same factor as the base rate.

    Args:
        checkpoint: the checkpoint that Lightning gives to `on_load_checkpoint`.
        optimizer: class_path and init_args of the resumed run's optimizer.
        lr_scheduler: class_path and init_args of the resumed run's schedule; None for no schedule.
    """
    before = (checkpoint.get("hyper_parameters", {}).get("optimizer") or ADAM).get("init_args", {})
    now = optimizer["init_args"]
    changed = {key: value for key, value in now.items() if before.get(key, value) != value}
    new, old = changed.pop("lr", None), before.get("lr")
    groups = [group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]]
    for group in groups:
        group.update({key: value for key, value in changed.items() if key in group})
        if "fused" in group:
            group["fused"] = now.get("fused")  # it depends on clipping, which is no setting of the optimizer
    schedules = checkpoint.get("lr_schedulers", [])
    for schedule in schedules:
        changes = _schedule_changes(checkpoint, lr_scheduler)
        schedule.update({key: value for key, value in changes.items() if key in schedule})
    if new is not None and old:
        for state in (*groups, *schedules):
            _rescale(state, old, new)


def _schedule_changes(checkpoint: dict[str, Any], now: dict[str, Any] | None) -> dict[str, Any]:
    before = checkpoint.get("hyper_parameters", {}).get("lr_scheduler")
    if not before or not now:
        return {}
    return {key: value for key, value in now["init_args"].items() if before["init_args"].get(key) != value}


def _rescale(state: dict[str, Any], old: float, new: float) -> None:
    """Replace the base learning rate in the state of a parameter group or of a schedule."""

    def rescaled(rate: float) -> float:
        return new if rate == old else rate * new / old

    for key in ("lr", "initial_lr"):
        if key in state:
            state[key] = rescaled(state[key])
    for key in ("base_lrs", "_last_lr"):
        if key in state:
            state[key] = [rescaled(rate) for rate in state[key]]
