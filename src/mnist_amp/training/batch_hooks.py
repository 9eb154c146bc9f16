"""The batch hooks of callbacks and modules: which of them need a call in each step of an execution.

An execution takes several optimizer steps in one iteration of the training loop, see `mnist_amp.training.execution`.
Lightning calls `on_train_batch_start` and `on_train_batch_end` once in an iteration. That is enough for a hook that
only shows, measures or saves something. A hook that changes the weights, or counts steps, would give another result.
"""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)

from mnist_amp.training.cuda_graph import has_hook

BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end")
# Lightning's classes whose own batch hooks may run once per execution: an execution ends where these are due
ONCE_PER_EXECUTION = (
    *(DeviceStatsMonitor, LearningRateMonitor, ModelCheckpoint, Timer),
    *(ProgressBar, RichProgressBar, TQDMProgressBar),
)
# a callback or a module that sets this attribute to True declares the same of its own batch hooks
ATTRIBUTE = "once_per_execution"


def weight_averages(trainer: Trainer) -> list[WeightAveraging]:
    """Return the callbacks that average the weights after each step; an execution calls them between its steps."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, WeightAveraging) and _averages_steps(callback)]


def single_step_reason(trainer: Trainer, module: LightningModule) -> str | None:
    """Return why each execution must take a single step; None if it may take several. See `hook_of_each_step`."""
    hook = hook_of_each_step(trainer, module)
    return None if hook is None else f"{hook} may need each step"


def hook_of_each_step(trainer: Trainer, module: LightningModule) -> str | None:
    """Return the first batch hook of which it is not known that one call per execution is enough, with its class.

    Args:
        trainer: its callbacks are examined.
        module: may have batch hooks of its own.
    """
    averages = weight_averages(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        hooks = [hook for hook in BATCH_HOOKS if has_hook(callback, hook)]
        if callback not in averages and _unknown_hooks(callback, hooks):
            return f"{_unknown_hooks(callback, hooks)[0]} of {type(callback).__name__}"
    hooks = [hook for hook in BATCH_HOOKS if _owner(module, hook) is not LightningModule]
    if _unknown_hooks(module, hooks):
        return f"{_unknown_hooks(module, hooks)[0]} of {type(module).__name__}"
    return None


def _averages_steps(callback: Callback) -> bool:
    """Whether the batch hooks of a callback are those of `WeightAveraging`, which need no batch."""
    return _owner(callback, "on_train_batch_end") is WeightAveraging and not has_hook(callback, "on_train_batch_start")


def _unknown_hooks(of: Callback | LightningModule, hooks: list[str]) -> list[str]:
    """Return the hooks of which it is not known that they may run once per execution."""
    return [hook for hook in hooks if not _is_known(type(of), _owner(of, hook))]


def _is_known(kind: type, owner: type | None) -> bool:
    """Whether the hook that `owner` defines may run once per execution. Another hook needs another declaration."""
    if owner is None or owner in ONCE_PER_EXECUTION:
        return owner is not None
    return any(vars(above).get(ATTRIBUTE, False) for above in kind.__mro__[: kind.__mro__.index(owner) + 1])


def _owner(of: Callback | LightningModule, hook: str) -> type | None:
    """Return the class that defines the hook of an object; None if the object itself does, like LambdaCallback."""
    if hook in vars(of):
        return None
    return next(kind for kind in type(of).__mro__ if hook in vars(kind))
