"""Several optimizer steps in one step of Lightning's loop, which shares out what the loop costs.

Keras calls it `steps_per_execution`. Every step is Lightning's own: its precision plugin does the autocast, the scaling
and the clipping, and its counters go on as they would. On a CUDA device the steps are captured once as a CUDA graph,
and from then on launched as one.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from mnist_amp.data.loader import Batch
from mnist_amp.errors import warn
from mnist_amp.lightning_internals import batches_since_validation

if TYPE_CHECKING:
    from mnist_amp.training.resumable_module import ResumableModule

# what callbacks may do within a step, which a graph would leave out
WITHIN = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")

NO_GRAPHS = "only a CUDA device has graphs"

# where a module or its data may change a batch
TRANSFER = ("on_before_batch_transfer", "on_after_batch_transfer")


class Execution:
    """Runs up to `steps` optimizer steps at once, on the batches that the Trainer would have had one after the other.

    An execution ends early where something is due after a step: a log row, a checkpoint, a validation, an epoch's end;
    and before the step of a log row, if a callback has `on_train_batch_start`, as LearningRateMonitor logs there.
    Callbacks' batch hooks run once an execution, with the first batch and its index.

    Args:
        module: whose `training_step` it runs.
        steps: at most so many at once.
    """

    def __init__(self, module: "ResumableModule", steps: int) -> None:
        self.module, self.steps = module, steps
        self.reason: str | None = None  # for not capturing
        self.graphs: dict[tuple[int, int, float], Graph | None] = {}  # None where it was run once, but not captured
        self.taken = self.replayed = 0  # steps of a fit, and how many of them as graphs

    def start(self) -> None:
        """Begin a fit."""
        self.reason, self.graphs = self.eager(self.module.trainer), {}
        self.taken = self.replayed = 0

    def eager(self, trainer: Trainer) -> str | None:
        """Say why the steps can't be captured as a CUDA graph; None if they can."""
        if trainer.strategy.root_device.type != "cuda":
            return NO_GRAPHS
        if trainer.world_size > 1:
            return "only a single process can be captured"
        if not self.module.optimizer_settings()["init_args"].get("fused"):
            return "the optimizer is not fused, so it waits for the host"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if any(_has(callback, hook) for hook in WITHIN):
                return f"{type(callback).__name__} looks into each step"
        for config in trainer.lr_scheduler_configs:
            parts = [config.scheduler, *getattr(config.scheduler, "_schedulers", [])]
            if any(getattr(part, "cycle_momentum", False) for part in parts):
                return "the schedule changes more than the learning rate"
        return None

    def describe(self, trainer: Trainer) -> str:
        """Say how the steps will run."""
        reason = self.eager(trainer)
        how = "captured as CUDA graphs" if reason is None else f"one after the other, as {reason}"
        return f"{self.steps} optimizer steps at once, {how}"

    def outcome(self) -> tuple[int, int, str | None] | None:
        """Return how many steps were replayed, of how many, and why no more; None where graphs were out of question."""
        asked = self.steps > 1 and self.reason != NO_GRAPHS
        return (self.replayed, self.taken, self.reason) if asked else None

    def run(self, optimizer: LightningOptimizer, closure: Closure) -> None:
        """Take the optimizer steps of one execution; the closure is that of Lightning's loop, for the first of them."""
        trainer, inputs = self.module.trainer, _inputs(closure)
        batches = [inputs["batch"], *self._fetch(trainer, self._length(trainer) - 1)]
        done = 0
        for group in _groups(batches, self.steps):
            graph = self._graph(group, optimizer, closure) if self.reason is None else None
            if graph is not None:
                graph.replay(self.module, group, [self._begin(trainer, done + place) for place in range(len(group))])
                self.replayed += len(group)
                self.module.loss = graph.losses[-1].clone()
            else:
                for place, batch in enumerate(group):
                    self._begin(trainer, done + place)
                    inputs.update(batch=batch, batch_idx=trainer.fit_loop.batch_idx)
                    optimizer.step(closure=closure)
            # or its autograd graph would live on, whose nodes are of another stream than what is captured next
            closure._result = None
            done += len(group)
        self.taken += done
        closure._result = ClosureResult(self.module.loss)  # which Lightning's loop asks for

    def _length(self, trainer: Trainer) -> int:
        """Return how many steps there are until something is due after one."""
        loop, step = trainer.fit_loop, trainer.global_step
        done: int = loop.epoch_loop.batch_progress.current.ready - 1
        left: list[int] = [self.steps, int(min(loop.max_batches, self.steps + done)) - done]
        if trainer.max_steps != -1:
            left.append(trainer.max_steps - step)
        since = batches_since_validation(trainer)
        if since is not None:
            left.append(1 if since == 0 else int(trainer.val_check_batch or 0) - since + 1)
        logged: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if logged and any(_has(callback, "on_train_batch_start") for callback in trainer.callbacks):  # type: ignore[attr-defined]
            left.append(logged - (step + 1) % logged)  # it may log before the step whose row is due
        intervals = [logged]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                intervals += [callback._every_n_train_steps, getattr(callback, "every", 0)]
        left += [every - step % every for every in intervals if every]
        return min(left)

    def _fetch(self, trainer: Trainer, count: int) -> Iterator[Batch]:
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        # Lightning's way to the device costs 26 microseconds a batch, so it is left out where it leads nowhere
        owners = (trainer.lightning_module, getattr(trainer, "datamodule", None))
        changed = any(is_overridden(hook, owner) for hook in TRANSFER for owner in owners)
        for _ in range(count):
            batch, _, _ = next(fetcher)
            batch = cast(Batch, trainer.precision_plugin.convert_input(batch))
            if changed or batch.images.device != trainer.strategy.root_device:
                batch = trainer.lightning_module._on_before_batch_transfer(batch)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            yield batch
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = fetcher.done

    def _begin(self, trainer: Trainer, place: int) -> float:
        """Count as Lightning does between two steps; returns the learning rate of the one that begins."""
        if place:
            loop = trainer.fit_loop.epoch_loop
            batches, steps = loop.batch_progress, loop.automatic_optimization.optim_progress.optimizer.step
            steps.increment_completed()
            batches.increment_processed()
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
            batches.increment_completed()
            loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            loop._batches_that_stepped += 1
            batches.increment_ready()
            batches.increment_started()
            steps.increment_ready()
        return float(trainer.optimizers[0].param_groups[0]["lr"])

    def _graph(self, batches: list[Batch], optimizer: LightningOptimizer, closure: Closure) -> "Graph | None":
        """Return the graph of as many steps; None the first time, as what is captured must have run once."""
        trainer = self.module.trainer
        rate = 0.0 if trainer.lr_scheduler_configs else float(trainer.optimizers[0].param_groups[0]["lr"])
        key = (len(batches), len(batches[0].labels), rate)
        if key not in self.graphs:
            self.graphs[key] = None
        elif self.graphs[key] is None:
            try:
                self.graphs[key] = Graph.capture(self.module, batches, optimizer, closure)
            except RuntimeError as error:
                what, *_ = str(error).split("\n")  # the rest is on how to debug CUDA
                self.reason = f"the capture failed: {what}"
                warn(f"the steps are not captured as a CUDA graph, but run one after the other, as {self.reason}")
        return self.graphs[key]


class Graph(NamedTuple):
    """Optimizer steps as a CUDA graph, with the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch  # images (steps, N, 1, 28, 28), labels and indices (steps, N)
    rates: (
        Tensor  # (steps,) learning rates where there is a schedule; else (0,), as the rate is a constant of the graph
    )
    losses: Tensor  # (steps,)
    logits: Tensor  # (steps, N, 10)
    gradients: list[Tensor | None]  # of the last step

    @classmethod
    def capture(
        cls, module: "ResumableModule", batches: list[Batch], optimizer: LightningOptimizer, closure: Closure
    ) -> "Graph":
        """Record the steps on batches of this number and size; nothing is computed yet.

        Weights, optimizer state and loss scale are read and written where they are, so graphs and eager steps may
        follow each other in any order.
        """
        inputs = Batch(*(torch.stack(part) for part in zip(*batches, strict=True)))
        scheduled = bool(module.trainer.lr_scheduler_configs)
        rates = torch.zeros(len(batches) if scheduled else 0, device=inputs.images.device)
        progress = module.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
        counts, settings = progress.state_dict(), [(group, dict(group)) for group in optimizer.param_groups]
        outputs, kept = _Outputs(), module.train_means
        module.train_means = outputs  # type: ignore[assignment]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                for step, batch in enumerate(map(Batch, *inputs)):
                    for group, _ in settings:
                        group["capturable"] = True
                        group["lr"] = rates[step] if scheduled else group["lr"]
                    _inputs(closure)["batch"] = batch
                    optimizer.step(closure=closure)
                losses, logits = map(torch.stack, zip(*outputs, strict=True))
        finally:
            module.train_means = kept
            progress.load_state_dict(counts)
            for group, before in settings:
                group.clear()  # of what was added as well, as not every optimizer knows `capturable`
                group.update(before)
        return cls(graph, inputs, rates, losses, logits, [parameter.grad for parameter in module.parameters()])

    def replay(self, module: "ResumableModule", batches: list[Batch], rates: list[float]) -> None:
        """Take the steps on these batches, with these learning rates; the host does not wait for them."""
        for static, parts in zip(self.inputs, zip(*batches, strict=True), strict=True):
            torch.stack(parts, out=static)
        if len(self.rates):
            # pinned, or the host would wait
            self.rates.copy_(torch.tensor(rates, pin_memory=self.rates.is_cuda), non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(module.parameters(), self.gradients, strict=True):
            parameter.grad = gradient
        module.train_means.add(self.losses, self.logits, self.inputs.labels)
        zero_grad = module.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad
        for _ in batches:
            zero_grad.increment_ready()
            zero_grad.increment_started()
            zero_grad.increment_completed()


def _has(callback: Callback, hook: str) -> bool:
    """Whether a callback has a hook of its own that it uses: None is in the place of one that it does not."""
    return callable(getattr(callback, hook)) and getattr(type(callback), hook) is not getattr(Callback, hook)


def _groups(batches: list[Batch], steps: int) -> Iterator[list[Batch]]:
    """Cut the batches of an execution into what is captured as a graph each.

    Where there are not `steps` of a size, they are cut into powers of two, or nearly every number of them would come to
    be a graph of its own, with its own memory.
    """
    for _, alike in groupby(batches, key=lambda batch: len(batch.labels)):
        left = list(alike)
        while left:
            count = steps if len(left) == steps else 1 << (len(left).bit_length() - 1)
            yield left[:count]
            left = left[count:]


class _Outputs(list[tuple[Tensor, Tensor]]):
    """Stands in for `EpochMeans` while a graph is captured."""

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.append((loss, logits))


def _inputs(closure: Closure) -> dict[str, Any]:
    """Return the arguments, by name, that a closure of Lightning's gives to `training_step`; they may be changed."""
    inputs: dict[str, Any] = closure._step_fn.args[0]  # type: ignore[attr-defined]
    return inputs
