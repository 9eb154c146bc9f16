"""The callbacks of a resumed run: their settings are those of now, their progress is the checkpoint's.

A callback's `load_state_dict` may put back settings of the earlier run, such as the patience of EarlyStopping.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from mnist_amp.errors import RequestError
from mnist_amp.runs.checkpoint_contents import progress
from mnist_amp.training.averaged_weights import SWA, check_average
from mnist_amp.wording import counted

# the state of an EarlyStopping that has not ended its run
NOT_STOPPED = {
    "stopped_epoch": 0,
    "stopping_reason": EarlyStoppingReason.NOT_STOPPED.value,
    "stopping_reason_message": None,
}
Overridden = Sequence[tuple[Callback, Mapping[str, Any]]]


class CallbackProgress(Callback):
    """Prepares the callbacks' states of a checkpoint for a fit that resumes from it.

    Args:
        path: of the checkpoint.
        checkpoint: its content.
        overridden: callbacks with those of their settings that differ from the checkpoint's run.

    Raises:
        RequestError: in `setup`; a callback has ended the run and would end it again at once, or an average of the
            weights can't be continued with these settings.
    """

    def __init__(self, path: str, checkpoint: Mapping[str, Any], overridden: Overridden) -> None:
        self.path, self.checkpoint, self.overridden = path, checkpoint, overridden

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        settings = {type(callback).__name__: changed for callback, changed in self.overridden}
        check_average(self.path, self.checkpoint, trainer, settings.get(SWA, {}))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                self._check_stopped(callback)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("callbacks", {})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer):
                states.pop(callback.state_key, None)  # a limit of time, such as max_time, is each command's own
            if isinstance(callback, EarlyStopping) and states.get(callback.state_key):
                states[callback.state_key].update(NOT_STOPPED)
            if isinstance(callback, WeightAveraging):
                # an average that is added begins with the next step, not with a batch whose gradients are accumulated
                states.setdefault(callback.state_key, {"latest_update_step": checkpoint["global_step"]})
        for callback, changed in self.overridden:
            state = states.get(callback.state_key) or {}
            state.update({name: value for name, value in changed.items() if name in state})

    def _check_stopped(self, callback: EarlyStopping) -> None:
        """Refuse to resume a run that this callback has ended, if it would end it again."""
        state = self.checkpoint.get("callbacks", {}).get(callback.state_key) or {}
        if not state.get("stopping_reason") or self._is_changed(callback, state):
            return
        setting = _setting(callback, state)
        raise RequestError(
            f"{type(callback).__name__} ended the run of {self.path} after "
            f"{counted(progress(self.checkpoint).epochs, 'epoch')}, because {_because(callback, state)}. With the same "
            "settings it would soon end this run again. Change one, for example "
            f"--trainer.callbacks.{setting.name} {setting.value}, or leave the callbacks out: --trainer.callbacks null."
        )

    def _is_changed(self, callback: EarlyStopping, state: Mapping[str, Any]) -> bool:
        """Whether an overridden setting may keep this callback from ending the run again."""
        changed = dict(next((changed for other, changed in self.overridden if other is callback), {}))
        name = _setting(callback, state).name
        if name == "patience":
            return callback.patience > state["wait_count"] or "min_delta" in changed
        return name in changed


class Ending(NamedTuple):
    """Why a callback ended a fit.

    Attributes:
        reason: such as `EarlyStopping, because val_loss had not improved for 3 checks (best 0.2511)`.
        callback: the EarlyStopping that ended it; None for another cause.
        setting: with which it would not soon end the fit again.
    """

    reason: str
    callback: EarlyStopping | None = None
    setting: "Setting | None" = None


class Setting(NamedTuple):
    """A setting of a callback, by its name, and a value for the command line."""

    name: str
    value: str


def ending(trainer: Trainer) -> Ending | None:
    """Return why a callback ended a fit; None if none did."""
    if not trainer.should_stop:
        return None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            state = callback.state_dict()
            return Ending(
                f"{type(callback).__name__}, because {_because(callback, state)}", callback, _setting(callback, state)
            )
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return Ending(f"the time limit of {callback.time_elapsed() + left:,.0f} s")
    return Ending("a callback or the module, which set trainer.should_stop")


def _because(callback: EarlyStopping, state: Mapping[str, Any]) -> str:
    """Return the clause that says why an EarlyStopping in this state has ended a run."""
    metric, reason = callback.monitor, EarlyStoppingReason(state["stopping_reason"])
    if reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return f"{metric} had not improved for {counted(state['wait_count'], 'check')} (best {state['best_score']:.4g})"
    if reason == EarlyStoppingReason.NON_FINITE_METRIC:
        return f"{metric} was not finite"
    name = reason.name.lower()
    return f"{metric} had reached {name} {getattr(callback, name)}"


def _setting(callback: EarlyStopping, state: Mapping[str, Any]) -> Setting:
    """Return a setting with which an EarlyStopping in this state would not soon end the run again."""
    reason = EarlyStoppingReason(state["stopping_reason"])
    if reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return Setting("patience", str(2 * max(callback.patience, state["wait_count"], 1)))
    if reason == EarlyStoppingReason.NON_FINITE_METRIC:
        return Setting("check_finite", "false")
    return Setting(reason.name.lower(), "null")
