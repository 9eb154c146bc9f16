"""Complete optimizer steps, captured as a CUDA graph and replayed with one launch.

A graph is a recording of GPU kernels with their arguments: the addresses of the memory that they read and write, and
the values of numbers such as a learning rate. A replay launches the same kernels with the same arguments, without
Python. A complete step (forward and backward pass, gradient scaling, clipping, the optimizer's update) can be captured
if a replay does what the eager step would have done. Four things must hold for that:

1. The host needs no value from the device. A fused optimizer decides on the device whether fp16 gradients have
   overflowed; others ask for the value, which is an error during a capture. Callbacks that run within a step may do the
   same, and a replay does not call them, so they prevent a capture.
2. Inputs and results stay at their addresses. A replay first copies its batches to the memory that the captured steps
   read (`StepGraph.inputs`). Weights, optimizer state, loss scale and the scaler's counts are updated in place.
3. Numbers that change between replays are in memory, not in arguments. With a schedule, each step reads its learning
   rate from `StepGraph.rates`. Without a schedule the rate is an argument, and another rate needs another graph. Other
   settings that a schedule changes, such as a momentum, would stay as captured, so they prevent a capture.
4. The step has run before. Optimizers create their state in their first step, and libraries their workspaces. Their
   memory and their initial values must not be part of the graph.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, ModelPruning
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.optimization.automatic import Closure
from torch import Tensor
from torch.nn import Parameter

from mnist_amp.data.loader import Batch
from mnist_amp.lightning_internals import count_zero_grad, step_inputs, uncounted_steps
from mnist_amp.torch_internals import schedules_within
from mnist_amp.training.metrics import EpochMeans
from mnist_amp.training.optimizers import cycles_momentum

# hooks of callbacks that run within a step; a replay would leave them out
HOOKS_WITHIN_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")

ONLY_ON_CUDA = "only a CUDA device has graphs"


class StepTaker(Protocol):
    """Takes single steps by compiled code, see `mnist_amp.training.compilation`."""

    def take(self, batch: Batch, rate: float) -> bool: ...


class SteppedModule(Protocol):
    """The parts of a LightningModule that its steps use, such as those of `ResumableModule`."""

    train_means: EpochMeans
    loss: Tensor
    grad_norm: Tensor | None

    @property
    def compilation(self) -> "StepTaker | None": ...

    @property
    def trainer(self) -> Trainer: ...

    def parameters(self) -> Iterator[Parameter]: ...

    def optimizer_settings(self) -> dict[str, Any]: ...


def obstacle(trainer: Trainer, is_fused: bool) -> str | None:
    """Return why the steps of a Trainer can't be captured; None if they can.

    Args:
        trainer: the Trainer, with its schedules if they are already made.
        is_fused: whether its optimizer is fused.
    """
    if trainer.strategy.root_device.type != "cuda":
        return ONLY_ON_CUDA
    if trainer.world_size > 1:
        return "only a single process can be captured"
    if not is_fused:
        return "the optimizer is not fused, so the host waits for the device in each step"
    return skipped_by_whole_steps(trainer)


def skipped_by_whole_steps(trainer: Trainer) -> str | None:
    """Return what would be missed if whole steps ran as one function, whose only setting is the learning rate."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if any(has_hook(callback, hook) for hook in HOOKS_WITHIN_STEP):
            return f"{type(callback).__name__} has a hook that runs in each step"
        if isinstance(callback, BaseFinetuning | ModelPruning):
            return f"{type(callback).__name__} changes which weights are trained, or how"
    # the first lines of a fit ask before the schedule is made
    is_cyclic = cycles_momentum(getattr(trainer.lightning_module, "lr_scheduler_init", None))
    made = [schedule for config in trainer.lr_scheduler_configs for schedule in schedules_within(config.scheduler)]
    if is_cyclic or any(getattr(schedule, "cycle_momentum", False) for schedule in made):
        return "the schedule changes more than the learning rate"
    return None


def has_hook(callback: Callback, hook: str) -> bool:
    """Whether a callback implements a hook. One that it does not need may be set to None."""
    is_defined = hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)
    return is_defined and callable(getattr(callback, hook))


class StepGraph(NamedTuple):
    """Optimizer steps as a CUDA graph, with the memory that it reads and writes.

    Attributes:
        graph: the graph of S steps on batches of N images.
        inputs: images (S, N, C, H, W), labels and indices (S, N).
        rates: learning rates (S,); without a schedule (0,), because then the rate is a constant of the graph.
        losses: mean losses (S,).
        logits: (S, N, classes).
        gradients: the gradients of the last step, in the order of the module's parameters.
        grad_norm: their norm () before they were clipped in mixed precision; None if they were not.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Batch
    rates: Tensor
    losses: Tensor
    logits: Tensor
    gradients: list[Tensor | None]
    grad_norm: Tensor | None

    @classmethod
    def capture(
        cls, module: SteppedModule, batches: list[Batch], optimizer: LightningOptimizer, closure: Closure
    ) -> "StepGraph":
        """Capture one step for each of these batches, which must have the same size; nothing is computed yet.

        Weights, optimizer state and loss scale are used where they are, so graphs and eager steps may follow each
        other in any order.

        Raises:
            RuntimeError: a step does what can't be captured.
        """
        inputs = Batch(*(torch.stack(part) for part in zip(*batches, strict=True)))
        is_scheduled = bool(module.trainer.lr_scheduler_configs)
        rates = torch.zeros(len(batches) if is_scheduled else 0, device=inputs.images.device)
        settings = [(group, dict(group)) for group in optimizer.param_groups]
        outputs, train_means = _Outputs(), module.train_means
        module.train_means = outputs  # type: ignore[assignment]
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream() if inputs.images.is_cuda else None
        try:
            with uncounted_steps(module.trainer), torch.cuda.graph(graph):
                for step, batch in enumerate(map(Batch, *inputs)):
                    for group, _ in settings:
                        group["capturable"] = True
                        group["lr"] = rates[step] if is_scheduled else group["lr"]
                    step_inputs(closure)["batch"] = batch
                    optimizer.step(closure=closure)
                losses, logits = map(torch.stack, zip(*outputs, strict=True))
        finally:
            if stream is not None:
                torch.cuda.set_stream(stream)  # torch 2.11 leaves that of a capture that failed
            module.train_means = train_means
            for group, before in settings:
                group.clear()  # not every optimizer has the setting `capturable`
                group.update(before)
        gradients = [parameter.grad for parameter in module.parameters()]
        return cls(graph, inputs, rates, losses, logits, gradients, module.grad_norm)

    def replay(self, module: SteppedModule, batches: list[Batch], rates: list[float]) -> None:
        """Take the steps on these batches, with these learning rates; the host does not wait for the device."""
        for static, parts in zip(self.inputs, zip(*batches, strict=True), strict=True):
            torch.stack(parts, out=static)
        if len(self.rates):
            # from pinned memory, because the host would wait for a copy from other memory
            self.rates.copy_(torch.tensor(rates, pin_memory=self.rates.is_cuda), non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(module.parameters(), self.gradients, strict=True):
            parameter.grad = gradient
        module.grad_norm = self.grad_norm
        module.train_means.add(self.losses, self.logits, self.inputs.labels)
        count_zero_grad(module.trainer, len(batches))


class _Outputs(list[tuple[Tensor, Tensor]]):
    """Replaces `EpochMeans` during a capture."""

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> bool:
        self.append((loss, logits))
        return True
