"""Several optimizer steps in one iteration of Lightning's training loop, so that the loop costs less per step.

Keras calls it `steps_per_execution`. Each step is Lightning's own: its precision plugin does the autocast, the scaling
and the clipping, and its counters advance as without this module. On a CUDA device the steps are captured as a CUDA
graph, see `mnist_amp.training.cuda_graph`.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.utilities.model_helpers import is_overridden

from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError, warn
from mnist_amp.lightning_internals import (
    batches_since_validation,
    begin_next_step,
    checkpoint_interval,
    next_batch,
    set_step_result,
    step_inputs,
    transfer_batch,
)
from mnist_amp.training.accumulation import accumulates
from mnist_amp.training.batch_hooks import single_step_reason, weight_averages
from mnist_amp.training.cuda_graph import ONLY_ON_CUDA, StepGraph, SteppedModule, has_hook, obstacle

# hooks of a module or of its data that may change a batch
TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


class GraphUse(NamedTuple):
    """How many optimizer steps of a fit were replayed as CUDA graphs.

    Attributes:
        replayed: the steps that were replayed.
        taken: all steps of the fit.
        reason: why no more steps were captured; None if nothing prevented it.
    """

    replayed: int
    taken: int
    reason: str | None


class Execution:
    """Takes up to `steps` optimizer steps on the next batches of the training loop, which sees them as one step.

    An execution ends early if something is due after a step: a log row, a checkpoint, a validation, the end of an
    epoch. If a callback implements `on_train_batch_start`, it also ends before the step of a log row, because callbacks
    such as LearningRateMonitor log there. The batch hooks of callbacks run once per execution, with the first batch and
    its index. If a callback may need each step, every execution is a single step, see `mnist_amp.training.batch_hooks`.

    `ResumableModule` has an Execution. This is how a LightningModule uses it:

        def on_train_start(self):
            self.execution.start()

        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            self.execution.run(optimizer, optimizer_closure)

    Args:
        module: the module whose `training_step` it calls.
        steps: the maximum number of steps in an execution.

    Attributes:
        single: why each execution of this fit is a single step; None if it may be several.
        reason: why the steps of this fit are not captured as CUDA graphs; None if they are.
        graphs: the graphs by number of steps, size of a batch and learning rate (0 with a schedule); None as a graph
            means that such steps have run once, and that the next time they are captured.
        taken: the steps of this fit.
        replayed: those that were replayed as CUDA graphs.
    """

    def __init__(self, module: SteppedModule, steps: int) -> None:
        self.module, self.steps = module, steps
        self.single: str | None = None
        self.averages: list[WeightAveraging] = []
        self.reason: str | None = None
        self.graphs: dict[tuple[int, int, float], StepGraph | None] = {}
        self.taken = self.replayed = 0

    def start(self) -> None:
        """Begin a fit."""
        trainer = self.module.trainer
        self.single, self.averages = self._single_step_reason(trainer), weight_averages(trainer)
        self.reason, self.graphs = self.obstacle(trainer), {}
        self.taken = self.replayed = 0

    def check(self, trainer: Trainer) -> None:
        """Check that the settings of a Trainer go with several steps per execution.

        Raises:
            RequestError: it accumulates gradients over batches.
        """
        if self.steps > 1 and accumulates(trainer):
            raise RequestError(
                f"model.steps_per_execution is {self.steps}, and gradients are accumulated over batches. These can't "
                "be combined. Leave one of them out."
            )

    def obstacle(self, trainer: Trainer) -> str | None:
        """Return why the steps can't be captured as CUDA graphs; None if they can."""
        reason = obstacle(trainer, bool(self.module.optimizer_settings()["init_args"].get("fused")))
        averages = [type(callback).__name__ for callback in weight_averages(trainer)]
        return f"{averages[0]} averages the weights after each step" if averages and reason is None else reason

    def describe(self, trainer: Trainer) -> str:
        """Return in words how the steps of a Trainer will run."""
        if (single := self._single_step_reason(trainer)) is not None:
            return f"1 optimizer step per execution instead of {self.steps}, because {single}"
        reason = self.obstacle(trainer)
        how = "captured as CUDA graphs" if reason is None else f"one after the other because {reason}"
        return f"{self.steps} optimizer steps per execution, {how}"

    def outcome(self) -> GraphUse | None:
        """Return how many steps of the fit were replayed; None if no graphs were requested or the device has none."""
        requested = self.steps > 1 and self.single is None and self.reason != ONLY_ON_CUDA
        return GraphUse(self.replayed, self.taken, self.reason) if requested else None

    def run(self, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take the steps of one execution.

        Args:
            optimizer: the optimizer that Lightning gives to `optimizer_step`.
            closure: the closure that Lightning gives to it, for the first step.
        """
        trainer = self.module.trainer
        batches = [step_inputs(closure)["batch"], *self._next_batches(trainer, self._length(trainer) - 1)]
        done = 0
        for group in _groups(batches, self.steps):
            graph = self._graph(group, optimizer, closure) if self.reason is None else None
            if graph is not None:
                graph.replay(self.module, group, [self._begin(trainer, done + place) for place in range(len(group))])
                self.replayed += len(group)
                self.module.loss = graph.losses[-1].clone()
            else:
                for place, batch in enumerate(group):
                    rate = self._begin(trainer, done + place)
                    if (compilation := self.module.compilation) is not None and compilation.take(batch, rate):
                        continue
                    step_inputs(closure).update(batch=batch, batch_idx=trainer.fit_loop.batch_idx)
                    with self.module.train_means.one_step():
                        optimizer.step(closure=closure)
                    closure.consume_result()  # an error if the optimizer has not called the closure
            # the result holds the autograd graph of the eager step, made on another stream than the next capture's
            set_step_result(closure, None)
            done += len(group)
        self.taken += done
        set_step_result(closure, self.module.loss)

    def _length(self, trainer: Trainer) -> int:
        """Return the number of steps until something is due after a step."""
        step, done = trainer.global_step, trainer.fit_loop.batch_idx
        left: list[int] = [self.steps, int(min(trainer.fit_loop.max_batches, self.steps + done)) - done]
        if trainer.max_steps != -1:
            left.append(trainer.max_steps - step)
        since = batches_since_validation(trainer)
        if since is not None:
            left.append(1 if since == 0 else int(trainer.val_check_batch or 0) - since + 1)
        logged: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if logged and any(has_hook(callback, "on_train_batch_start") for callback in trainer.callbacks):  # type: ignore[attr-defined]
            left.append(logged - (step + 1) % logged)  # the hook may log before the step of the row
        intervals = [logged]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                intervals += [checkpoint_interval(callback), getattr(callback, "save_every", 0)]
        left += [every - step % every for every in intervals if every]
        return min(left)

    def _next_batches(self, trainer: Trainer, count: int) -> Iterator[Batch]:
        # Lightning's transfer costs 26 microseconds per batch, so it is left out if it would change nothing
        owners = (trainer.lightning_module, getattr(trainer, "datamodule", None))
        is_changed = any(is_overridden(hook, owner) for hook in TRANSFER_HOOKS for owner in owners)
        for _ in range(count):
            batch: Batch = next_batch(trainer)
            if is_changed or batch.images.device != trainer.strategy.root_device:
                batch = transfer_batch(trainer, batch)
            yield batch

    def _begin(self, trainer: Trainer, place: int) -> float:
        """Begin the step at a place in the execution; Lightning has begun the first one. Returns its learning rate."""
        if place:
            begin_next_step(trainer, self._average)
        return float(trainer.optimizers[0].param_groups[0]["lr"])

    def _average(self) -> None:
        """Average the weights after a step within the execution, as Lightning does after the last one."""
        trainer, module = self.module.trainer, self.module.trainer.lightning_module
        for callback in self.averages:
            callback.on_train_batch_end(trainer, module, None, None, trainer.fit_loop.batch_idx)

    def _single_step_reason(self, trainer: Trainer) -> str | None:
        return single_step_reason(trainer, trainer.lightning_module) if self.steps > 1 else None

    def _graph(self, batches: list[Batch], optimizer: LightningOptimizer, closure: Closure) -> StepGraph | None:
        """Return the graph for such batches; None the first time, because steps must have run before their capture."""
        trainer = self.module.trainer
        rate = 0.0 if trainer.lr_scheduler_configs else float(trainer.optimizers[0].param_groups[0]["lr"])
        key = (len(batches), len(batches[0].labels), rate)
        if key not in self.graphs:
            self.graphs[key] = None
        elif self.graphs[key] is None:
            try:
                self.graphs[key] = StepGraph.capture(self.module, batches, optimizer, closure)
            except RuntimeError as error:
                first_line, *_ = str(error).split("\n")  # the others are on how to debug CUDA
                self.reason = f"the capture failed: {first_line}"
                warn(f"the steps are not captured as a CUDA graph, but run one after the other because {self.reason}")
        return self.graphs[key]


def _groups(batches: list[Batch], steps: int) -> Iterator[list[Batch]]:
    """Split the batches of an execution into groups of the same size of batch; each group is captured as a graph.

    If fewer than `steps` batches have the same size, they are split into powers of two. Otherwise nearly every number
    of batches would become a graph of its own, with memory of its own.
    """
    for _, same_size in groupby(batches, key=lambda batch: len(batch.labels)):
        left = list(same_size)
        while left:
            count = steps if len(left) == steps else 1 << (len(left).bit_length() - 1)
            yield left[:count]
            left = left[count:]
