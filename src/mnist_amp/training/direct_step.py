"""An optimizer step as Lightning takes it, without the calls that do nothing in this fit.

Lightning calls some twenty hooks in a step, of callbacks, module, strategy and precision plugin. In most fits they are
all empty, and calling them costs a quarter of the time of a small step. A `DirectStep` does the rest, in Lightning's
order: `training_step` in the context of the precision plugin, zero the gradients, the backward pass on the scaled loss,
the clipping, the optimizer's step by way of the scaler. The results are the same, to the bit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.errors import RunError
from mnist_amp.lightning_internals import run_training_step, step_inputs
from mnist_amp.training.accumulation import accumulates
from mnist_amp.training.cuda_graph import HOOKS_WITHIN_STEP, has_hook

# methods that a DirectStep replaces: those of the module, and those of the precision plugin
MODULE_METHODS = (*HOOKS_WITHIN_STEP, "backward", "optimizer_zero_grad")
PLUGIN_METHODS = ("pre_backward", "backward", "post_backward", "optimizer_step", "train_step_context")
# a profiler that sets this attribute to True needs no call within a step
ATTRIBUTE = "allows_direct_steps"


def profiler_of_each_step(trainer: Trainer) -> str | None:
    """Return the class name of the Trainer's profiler if it may need calls within a step; None if it needs none."""
    profiler = trainer.profiler  # type: ignore[attr-defined]
    needs_none = type(profiler) is PassThroughProfiler or getattr(profiler, ATTRIBUTE, False)
    return None if needs_none else type(profiler).__name__


def may_be_direct(trainer: Trainer, module: LightningModule) -> bool:
    """Whether the steps of a fit may be direct: nothing that a DirectStep leaves out does anything.

    Args:
        trainer: its fit has begun.
        module: its `configure_gradient_clipping` may be its own.
    """
    plugin = type(trainer.precision_plugin)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and profiler_of_each_step(trainer) is None
        and not accumulates(trainer)
        and type(trainer.optimizers[0]).zero_grad is Optimizer.zero_grad
        and not any(has_hook(callback, hook) for callback in callbacks for hook in HOOKS_WITHIN_STEP)
        and not any(is_overridden(method, module) for method in MODULE_METHODS)
        and all(
            getattr(plugin, method) in (getattr(Precision, method), getattr(MixedPrecision, method))
            for method in PLUGIN_METHODS
        )
    )


class DirectStep:
    """Takes optimizer steps of a fit without the calls that do nothing in it, see `may_be_direct`.

        step = DirectStep(trainer, module)
        step.take(closure)

    Args:
        trainer: its fit has begun.
        module: its `training_step` is called.

    Attributes:
        extra: what the newest `training_step` returned besides the loss, by name.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.trainer, self.module = trainer, module
        self.plugin, self.optimizer = trainer.precision_plugin, trainer.optimizers[0]
        self.scaler: torch.amp.GradScaler | None = getattr(self.plugin, "scaler", None)
        self.context = _reusable_context(self.plugin)
        self.inputs: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.is_computed = False

    def take(self, closure: Closure) -> None:
        """Take a step on the inputs of Lightning's closure.

        Raises:
            RunError: the optimizer has not computed the loss.
        """
        self.inputs, self.is_computed = step_inputs(closure), False
        if self.scaler is None:
            self.optimizer.step(closure=self._compute_and_clip)  # type: ignore[arg-type]  # torch's closures return a Tensor
        else:
            self.plugin.optimizer_step(self.optimizer, model=self.module, closure=self._compute)
        if not self.is_computed:
            raise RunError(f"{type(self.optimizer).__name__} has not called the closure that computes the loss.")

    @torch.enable_grad()
    def _compute(self) -> Tensor | None:
        """Compute the loss () and the gradients; the plugin clips them."""
        self.is_computed = True
        with self.context():
            loss, self.extra = run_training_step(self.module, self.inputs)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        if loss is not None:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return loss

    def _compute_and_clip(self) -> Tensor | None:
        loss = self._compute()
        trainer = self.trainer
        self.module.configure_gradient_clipping(
            self.optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
        return loss


def _reusable_context(plugin: Precision) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context of a training step. It is always the same autocast, because making one is slow."""
    if type(plugin).forward_context is Precision.forward_context:
        return nullcontext
    if isinstance(plugin, MixedPrecision) and type(plugin).forward_context is MixedPrecision.forward_context:
        autocast = plugin.autocast_context_manager()
        return lambda: autocast
    return plugin.train_step_context
