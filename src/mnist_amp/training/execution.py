"""Several optimizer steps in one iteration of Lightning's training loop, so that the loop costs less per step.

Keras calls it `steps_per_execution`. The steps do what Lightning's own do: its precision plugin does the autocast, the
scaling and the clipping, and its counters advance as without this module. Calls that do nothing in a fit are left out,
see `mnist_amp.training.direct_step`. On a CUDA device the steps are captured as a CUDA graph, see
`mnist_amp.training.cuda_graph`.
"""

import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.utilities.model_helpers import is_overridden

from mnist_amp.data.datamodule import MemoryDataModule
from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError, warn
from mnist_amp.lightning_internals import (
    announce_batch,
    batches_since_validation,
    begin_next_step,
    checkpoint_interval,
    count_zero_grad,
    next_batch,
    set_step_result,
    step_inputs,
    transfer_batch,
)
from mnist_amp.training.accumulation import accumulates
from mnist_amp.training.batch_hooks import single_step_reason, weight_averages
from mnist_amp.training.cuda_graph import ONLY_ON_CUDA, StepGraph, SteppedModule, has_hook, obstacle
from mnist_amp.training.direct_step import DirectStep, may_be_direct, profiler_of_each_step

AUTO: Literal["auto"] = "auto"
AUTO_STEPS = 50  # with them, the loop costs 2 % of what it costs with single steps
# the longest execution of `auto`: the progress bar, Ctrl-C and max_time wait for its end
AUTO_SECONDS = 0.1
# hooks of a module or of its data that may change a batch
TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


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
        steps: the maximum number of steps in an execution. `auto` takes as many as it may, for up to `AUTO_SECONDS`.

    Attributes:
        limit: the maximum number of steps in an execution of this fit.
        single: why each execution of this fit is a single step; None if it may be several.
        reason: why the steps of this fit are not captured as CUDA graphs; None if they are.
        graphs: the graphs by number of steps, size of a batch and learning rate (0 with a schedule); None as a graph
            means that such steps have run once, and that the next time they are captured.
        direct: takes the steps that are not captured; None if Lightning takes them.
        taken: the steps of this fit.
        replayed: those that were replayed as CUDA graphs.
    """

    def __init__(self, module: SteppedModule, steps: int | Literal["auto"]) -> None:
        self.module, self.steps = module, steps
        self.limit = 1
        self.single: str | None = None
        self.averages: list[WeightAveraging] = []
        self.reason: str | None = None
        self.graphs: dict[tuple[int, int, float], StepGraph | None] = {}
        self.taken = self.replayed = 0
        self.direct: DirectStep | None = None
        self.extra: dict[str, Any] = {}  # what the newest training_step returned besides the loss
        self.is_transferred = True  # whether Lightning's transfer of a batch may do something
        self.may_log = True  # whether `training_step` may call `self.log`

    def start(self) -> None:
        """Begin a fit."""
        trainer, module = self.module.trainer, self.module.trainer.lightning_module
        self.single, self.averages = self.single_step_reason(trainer), weight_averages(trainer)
        self.limit = 1 if self.single else AUTO_STEPS if self.steps == AUTO else self.steps
        self.reason, self.graphs = self.obstacle(trainer), {}
        self.taken = self.replayed = 0
        self.direct = DirectStep(trainer, module) if may_be_direct(trainer, module) else None
        owners = (module, getattr(trainer, "datamodule", None))
        self.may_log = not step_is_loss_of(module)
        self.is_transferred = any(_changes_batches(owner, hook) for hook in TRANSFER_HOOKS for owner in owners)

    def end(self) -> None:
        """End a fit: keep nothing that belongs to its Trainer, because the module may be pickled or copied."""
        self.direct, self.averages, self.graphs = None, [], {}

    def check(self, trainer: Trainer) -> None:
        """Check that the settings of a Trainer go with several steps per execution.

        Raises:
            RequestError: it accumulates gradients over batches.
        """
        if self.steps not in (1, AUTO) and accumulates(trainer):
            raise RequestError(
                f"model.steps_per_execution is {self.steps}, and gradients are accumulated over batches. These can't "
                "be combined. Leave one of them out."
            )

    def obstacle(self, trainer: Trainer) -> str | None:
        """Return why the steps can't be captured as CUDA graphs; None if they can."""
        reason = obstacle(trainer, bool(self.module.optimizer_settings()["init_args"].get("fused")))
        averages = [type(callback).__name__ for callback in weight_averages(trainer)]
        return f"{averages[0]} averages the weights after each step" if averages and reason is None else reason

    def single_step_reason(self, trainer: Trainer) -> str | None:
        """Return why each execution of a fit is a single step; None if it may be several, or a single one is set."""
        if self.steps == 1:
            return None
        reason = single_step_reason(trainer, trainer.lightning_module)
        return _reason_of_auto(trainer) if reason is None and self.steps == AUTO else reason

    def describe(self, trainer: Trainer) -> str:
        """Return in words how the steps of a Trainer will run."""
        single = self.single_step_reason(trainer)
        if self.steps == AUTO:
            if single is not None:
                return f"1 optimizer step per execution, because {single}"
            return f"up to {AUTO_STEPS} optimizer steps per execution, for up to {AUTO_SECONDS} s"
        if single is not None:
            return f"1 optimizer step per execution instead of {self.steps}, because {single}"
        reason = self.obstacle(trainer)
        how = "captured as CUDA graphs" if reason is None else f"one after the other because {reason}"
        return f"{self.steps} optimizer steps per execution, {how}"

    def outcome(self) -> GraphUse | None:
        """Return how many steps of the fit were replayed; None if no graphs were requested or the device has none."""
        requested = self.limit > 1 and self.reason != ONLY_ON_CUDA
        return GraphUse(self.replayed, self.taken, self.reason) if requested else None

    def run(self, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take the steps of one execution.

        Args:
            optimizer: the optimizer that Lightning gives to `optimizer_step`.
            closure: the closure that Lightning gives to it, for the first step.
        """
        steps = self._length(self.module.trainer) if self.limit > 1 else 1
        if self.limit > 1 and self.reason is None:
            self._run_captured(steps, optimizer, closure)
        else:
            self._run_eagerly(steps, optimizer, closure)
        loss, batches = self.module.loss, self.module.trainer.accumulate_grad_batches
        set_step_result(closure, loss if batches == 1 else loss / batches, self.extra)  # as Lightning has it

    def _run_eagerly(self, steps: int, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take up to `steps` steps; each batch is fetched when the step before it is done."""
        trainer = self.module.trainer
        end = time.perf_counter() + AUTO_SECONDS if self.steps == AUTO else None
        for index in range(steps):
            if index:
                is_over = end is not None and time.perf_counter() > end
                if is_over or trainer.is_last_batch:
                    break
                batch = self._next_batch(trainer)
                begin_next_step(trainer, self._average)
                self._set_inputs(closure, batch)
            self._take(optimizer, closure)

    def _run_captured(self, steps: int, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take `steps` steps: groups of batches whose steps are captured, or run once before that."""
        trainer = self.module.trainer
        batches = [step_inputs(closure)["batch"]]
        while len(batches) < steps and not trainer.is_last_batch:
            batches.append(self._next_batch(trainer))
        done = 0
        for group in _groups(batches, self.limit):
            graph = self._graph(group, optimizer, closure) if self.reason is None else None
            if graph is not None:
                graph.replay(self.module, group, [self._begin(trainer, done + index) for index in range(len(group))])
                self.taken += len(group)
                self.replayed += len(group)
                self.module.loss = graph.losses[-1].clone()
                self.extra = {}
            else:
                for index, batch in enumerate(group):
                    self._begin(trainer, done + index)
                    self._set_inputs(closure, batch)
                    self._take(optimizer, closure)
            # the result holds the autograd graph of an eager step, made on another stream than the next capture's
            set_step_result(closure, None)
            done += len(group)

    def _take(self, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take one step on the inputs of Lightning's closure."""
        self.taken += 1
        compilation = self.module.compilation
        if compilation is not None and compilation.take(step_inputs(closure)["batch"], _rate(self.module.trainer)):
            self.extra = {}
            return
        means = self.module.train_means
        with means.one_step():
            if self.direct is not None:
                self.direct.take(closure)
                self.extra = self.direct.extra
                count_zero_grad(self.module.trainer, means.evaluations)
            else:
                optimizer.step(closure=closure)
                self.extra = closure.consume_result().extra  # an error if the optimizer has not called the closure

    def _set_inputs(self, closure: Closure, batch: Batch) -> None:
        if self.may_log:
            announce_batch(self.module.trainer, batch)
        inputs = step_inputs(closure)
        inputs["batch"] = batch
        if "batch_idx" in inputs:
            inputs["batch_idx"] = self.module.trainer.fit_loop.batch_idx

    def _length(self, trainer: Trainer) -> int:
        """Return the number of steps until something is due after a step."""
        step, done = trainer.global_step, trainer.fit_loop.batch_idx
        left: list[int] = [self.limit, int(min(trainer.fit_loop.max_batches, self.limit + done)) - done]
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

    def _next_batch(self, trainer: Trainer) -> Batch:
        batch: Batch = next_batch(trainer)
        # Lightning's transfer costs 26 microseconds per batch, so it is left out if it would change nothing
        is_there = isinstance(batch, Batch) and batch.images.device == trainer.strategy.root_device
        return batch if is_there and not self.is_transferred else transfer_batch(trainer, batch)

    def _begin(self, trainer: Trainer, index: int) -> float:
        """Begin the step at an index in the execution; Lightning has begun the first one. Returns its learning rate."""
        if index:
            begin_next_step(trainer, self._average)
        return _rate(trainer)

    def _average(self) -> None:
        """Average the weights after a step within the execution, as Lightning does after the last one."""
        trainer, module = self.module.trainer, self.module.trainer.lightning_module
        for callback in self.averages:
            callback.on_train_batch_end(trainer, module, None, None, trainer.fit_loop.batch_idx)

    def _graph(self, batches: list[Batch], optimizer: LightningOptimizer, closure: Closure) -> StepGraph | None:
        """Return the graph for such batches; None the first time, because steps must have run before their capture."""
        trainer = self.module.trainer
        rate = 0.0 if trainer.lr_scheduler_configs else _rate(trainer)
        key = (len(batches), len(batches[0].labels), rate)
        if key not in self.graphs:
            self.graphs[key] = None
        elif self.graphs[key] is None:
            try:
                self.graphs[key] = StepGraph.capture(self.module, batches, optimizer, closure)
            except RuntimeError as error:
                first_line, *_ = str(_first(error)).split("\n")  # the others are on how to debug CUDA
                self.reason = f"the capture failed: {first_line}"
                warn(f"the steps are not captured as a CUDA graph, but run one after the other because {self.reason}")
        return self.graphs[key]


def step_is_loss_of(module: Any) -> bool:
    """Whether the training step of a module is `loss_of` and `record_step`, and no more.

    A class declares it by the attribute `step_is_loss_of = True`, which its subclasses do not inherit.
    """
    return bool(vars(type(module)).get("step_is_loss_of", False))


def _first(error: BaseException) -> BaseException:
    """Return the error during whose handling others were raised: the end of a capture that failed fails as well."""
    while error.__context__ is not None and error.__cause__ is None:
        error = error.__context__
    return error


def _changes_batches(owner: Any, hook: str) -> bool:
    """Whether a module, or its data, has such a hook of its own; that of MemoryDataModule changes nothing."""
    return is_overridden(hook, owner) and getattr(type(owner), hook) is not getattr(MemoryDataModule, hook)


def _rate(trainer: Trainer) -> float:
    """Return the learning rate of the first parameters."""
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _reason_of_auto(trainer: Trainer) -> str | None:
    """Return why `auto` takes single steps in a fit that could take several, if they are requested by number."""
    if accumulates(trainer):
        return "gradients are accumulated over batches"
    if trainer.world_size > 1:
        return "the processes of a run must end their executions after the same steps"
    if profiler := profiler_of_each_step(trainer):
        return f"{profiler} measures each step"
    if trainer.strategy.root_device.type == "cuda":
        return f"CUDA graphs were never tried on a GPU. Use --model.steps_per_execution {AUTO_STEPS} to try them"
    return None


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
