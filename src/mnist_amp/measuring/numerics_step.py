"""A training step that begins with given weights, batch and seed, and the record of its gradients and layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities import CombinedLoader, move_data_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from mnist_amp.lightning_internals import end_fit
from mnist_amp.measuring.dtypes import dtypes
from mnist_amp.torch_internals import tree_leaves, tree_map, unscales_by_itself
from mnist_amp.training.float32_layers import run_in_float32
from mnist_amp.training.gradient_scaler import scaler_of


@dataclass(frozen=True)
class Start:
    """The state that a step begins with, on the CPU.

    Attributes:
        weights: the state_dict of the module.
        batch: as the loader made it, before it is transferred.
        seed: of all random generators.
    """

    weights: dict[str, Any]
    batch: Any
    seed: int


class OneBatch:
    """A loader of one batch. Lightning would take a list as several loaders."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield _copied(self.batch)  # the step may change it


class WarmUp(Callback):
    """Trains for some steps, keeps the weights and a batch, and ends the fit.

    Attributes:
        weights: after the steps; None before.
        batch: the first of the fit, on the CPU, before it is transferred.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.weights: dict[str, Any] | None = None
        self.batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        drop_plateau_schedules(trainer)
        batch, _, _ = next(iter(CombinedLoader(trainer.train_dataloader)))
        self.batch = _copied(move_data_to_device(batch, torch.device("cpu")))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.done == self.steps:
            state = pl_module.state_dict()
            self.weights = {name: _copied(move_data_to_device(value, "cpu")) for name, value in state.items()}
        self.done += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.weights is not None:
            end_fit(trainer)


class StepRecorder(Callback):
    """Sets up a step from a `Start`, and records it.

    Each optimizer leaves the weights unchanged, so the gradients of all optimizers belong to the same weights.

    Args:
        start: what the step begins with.
        scale: the loss scale; by default that of the Trainer.
        float32_layers: layers that run in float32.
        nudged: move each weight to a neighbouring float32, to measure rounding errors.

    Attributes:
        gradients: by parameter: float32, on the CPU, not scaled. Of an optimizer that steps more than once, these are
            the gradients of its first step.
        scale: the loss scale; None without a scaler.
        layers: those that ran.
    """

    def __init__(
        self, start: Start, scale: float | None = None, float32_layers: Sequence[str] = (), nudged: bool = False
    ) -> None:
        self.start, self.scale, self.float32_layers, self.nudged = start, scale, float32_layers, nudged
        self.gradients: dict[str, Tensor] = {}
        self.layers = LayerWatch()
        self.hooks = ExitStack()

    @property
    def is_finite(self) -> bool:
        """Whether the step has gradients, and all are finite."""
        return bool(self.gradients) and all(bool(each.isfinite().all()) for each in self.gradients.values())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.load_state_dict(self.start.weights)
        if self.nudged:
            nudge(pl_module)
        drop_plateau_schedules(trainer)
        self._set_scale(trainer)
        self.names = {parameter: name for name, parameter in pl_module.named_parameters()}
        for optimizer in trainer.optimizers:
            self.hooks.callback(optimizer.register_step_post_hook(_restoring(optimizer)).remove)
        for handle in run_in_float32(pl_module, self.float32_layers):
            self.hooks.callback(handle.remove)
        self.hooks.enter_context(self.layers.watching(pl_module))
        seed_everything(self.start.seed, verbose=False)

    def _set_scale(self, trainer: Trainer) -> None:
        scaler = scaler_of(trainer)
        if scaler is None:
            self.scale = None
        elif self.scale is None:
            self.scale = scaler.get_scale()
        else:
            scaler.load_state_dict({**scaler.state_dict(), "scale": self.scale})

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        scaled = self.scale is not None and unscales_by_itself(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._keep(parameters, self.scale if scaled and self.scale else 1.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # of optimizers that have not stepped, because the module accumulates gradients itself: nothing unscales them
        self._keep(list(pl_module.parameters()), self.scale or 1.0)
        self.hooks.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.hooks.close()

    def _keep(self, parameters: list[nn.Parameter], scale: float) -> None:
        for parameter in parameters:
            name = self.names.get(parameter)
            if name is not None and parameter.grad is not None and name not in self.gradients:
                gradient = parameter.grad.detach()
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                self.gradients[name] = gradient.float().div(scale).cpu()  # a copy on each device


def drop_plateau_schedules(trainer: Trainer) -> None:
    """Drop the schedules that need a metric, which there is not without validation."""
    if trainer.lightning_module.automatic_optimization:
        kept = [config for config in trainer.lr_scheduler_configs if not config.reduce_on_plateau]
        trainer.strategy.lr_scheduler_configs = kept


def nudge(module: nn.Module) -> None:
    """Move each weight to one of the two neighbouring numbers, at random but each time the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                up = torch.rand(parameter.shape, generator=generator) < 0.5
                towards = torch.where(up, torch.inf, -torch.inf).to(parameter)
                parameter.copy_(torch.nextafter(parameter, towards))


def _restoring(optimizer: Optimizer) -> Callable[..., None]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.detach().clone() for parameter in parameters]

    def restore(*_: Any) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)

    return restore


@dataclass
class _Call:
    """A call of a module that has not ended."""

    name: str
    input_is_finite: bool
    largest_input: float
    calls_others: bool = False
    other_overflows: bool = False


@dataclass
class Activations:
    """Of a layer that ran; the magnitudes are those of the largest finite values."""

    kind: str
    largest_input: float = 0.0
    largest: float = 0.0
    types: str = ""
    is_finite: bool = True


@dataclass
class LayerWatch:
    """Watches the modules that run: their activations, and where a non-finite value comes from.

    Attributes:
        layers: by name. A layer is a module that ran and called no other, such as `nn.MultiheadAttention`.
        overflows: names of the modules that made a non-finite output of finite inputs, and none of whose modules did.
        running: the calls that have not ended. After an error, the last is the call that failed.
    """

    layers: dict[str, Activations] = field(default_factory=dict)
    overflows: list[str] = field(default_factory=list)
    running: list[_Call] = field(default_factory=list)

    def watching(self, module: nn.Module) -> ExitStack:
        """Watch a module until the returned context ends."""
        stack = ExitStack()
        for name, each in module.named_modules():
            stack.callback(each.register_forward_pre_hook(self._begin(name), with_kwargs=True).remove)
            stack.callback(each.register_forward_hook(self._end(name)).remove)
        return stack

    def _begin(self, name: str) -> Callable[..., None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            largest, is_finite = magnitude((args, kwargs))
            self.running.append(_Call(name, is_finite, largest))

        return begin

    def _end(self, name: str) -> Callable[..., None]:
        def end(module: nn.Module, args: Any, output: Any) -> None:
            call = self.running.pop()
            while call.name != name:  # recomputed activations end a call early, by an exception
                call = self.running.pop()
            largest, is_finite = magnitude(output)
            overflows = call.input_is_finite and not is_finite and not call.other_overflows
            if overflows and name not in self.overflows:
                self.overflows.append(name)
            if self.running:
                self.running[-1].calls_others = True
                self.running[-1].other_overflows |= overflows or call.other_overflows
            if not call.calls_others:
                found = self.layers.setdefault(name, Activations(type(module).__name__))
                found.largest_input = max(found.largest_input, call.largest_input)
                found.largest = max(found.largest, largest)
                found.types, found.is_finite = dtypes(output), found.is_finite and is_finite

        return end

    @property
    def failed_layer(self) -> str | None:
        """The layer that ran when an error occurred; None if no layer ran."""
        return self.running[-1].name or None if self.running else None


def magnitude(values: Any) -> tuple[float, bool]:
    """Return the magnitude of the largest finite number in nested tensors, and whether all numbers are finite.

    >>> magnitude([torch.tensor([1.0, -3.0]), torch.tensor([torch.inf]), "text"])
    (3.0, False)
    """
    largest, is_finite = 0.0, True
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
            found = leaf.detach().abs()
            finite = found.isfinite()
            is_finite = is_finite and bool(finite.all())
            largest = max(largest, float(found.where(finite, 0).amax()))
    return largest, is_finite


def common_rows(batch: Any) -> int | None:
    """Return the size of the first dimension of all tensors in a batch; None if they differ, or if not all are tensors.

    >>> common_rows({"x": torch.zeros(8, 3), "y": torch.zeros(8)})
    8
    """
    leaves = tree_leaves(batch)
    sizes = {leaf.shape[0] if isinstance(leaf, Tensor) and leaf.ndim else None for leaf in leaves}
    size = sizes.pop() if len(sizes) == 1 else None
    return None if size is None else int(size)


def first_rows(batch: Any, rows: int) -> Any:
    """Return the first rows of all tensors in a batch."""
    return tree_map(lambda tensor: tensor[:rows].clone(), batch)


def _copied(values: Any) -> Any:
    return tree_map(lambda value: value.detach().clone() if isinstance(value, Tensor) else value, values)
