"""The memory that a training step uses, by what it holds."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mnist_amp.measuring.module_access import dataset_bytes
from mnist_amp.measuring.profile_records import MemoryUse
from mnist_amp.torch_internals import tree_leaves


class MemoryMeter:
    """Measures the memory of a training step that runs in its context.

        meter = MemoryMeter(trainer, module)
        with meter.measuring():
            ...  # a step; `meter.begin_batch(batch)` is called when its batch is on the device
        print(meter.use())

    The parts are weights, gradients, optimizer state, the tensors of a batch, and activations. Activations are all else
    that is kept for the backward pass at a time, so also the copies of the batch and of the weights in half precision.
    `peak` is the most that was allocated on a CUDA device, and `data` is the part of it that holds the images of the
    data set. Both are None on a CPU, where torch does not count. Tensors that an `autograd.Function` keeps in its own
    attributes are not found.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.trainer, self.module = trainer, module
        self.on_cuda = trainer.strategy.root_device.type == "cuda"
        self.batch = self.gradients = 0
        self.saved = _SavedTensors()
        self.saved.ignore(module.parameters())
        self.peak: int | None = None

    def begin_batch(self, batch: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        self.batch = sum(tensor.nbytes for tensor in tensors)
        self.saved.ignore(tensors)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()
        with ExitStack() as stack:
            for optimizer in self.trainer.optimizers:
                # before the step, because a module may free its gradients after it, and after it, because Lightning
                # computes them within it
                for register in (optimizer.register_step_pre_hook, optimizer.register_step_post_hook):
                    stack.callback(register(self._count_gradients).remove)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self.saved.pack, self.saved.unpack))
            yield
        self.peak = torch.cuda.max_memory_allocated() if self.on_cuda else None

    def use(self) -> MemoryUse:
        """Return the bytes by what they hold."""
        states = tree_leaves([list(optimizer.state.values()) for optimizer in self.trainer.optimizers])
        return MemoryUse(
            weights=sum(parameter.nbytes for parameter in self.module.parameters()),
            gradients=self.gradients,
            optimizer=sum(state.nbytes for state in states if isinstance(state, Tensor)),
            batch=self.batch,
            activations=self.saved.most,
            peak=self.peak,
            data=dataset_bytes(self.trainer) if self.on_cuda else None,
        )

    def _count_gradients(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        held = sum(parameter.grad.nbytes for parameter in self.module.parameters() if parameter.grad is not None)
        self.gradients = max(self.gradients, held)


class _SavedTensors:
    """Counts the bytes that autograd keeps at a time; tensors that share memory count once.

    A module may run several forward and backward passes in a step, and the first graph is freed before the second.

    Attributes:
        most: bytes that were kept at one time.
    """

    def __init__(self) -> None:
        self.most = self._now = 0
        self._ignored: set[int] = set()
        self._uses: dict[int, int] = {}  # by address

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        self._ignored |= {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def pack(self, tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._ignored or not address:
            return tensor
        if address not in self._uses:
            self._now += size
            self.most = max(self.most, self._now)
        self._uses[address] = self._uses.get(address, 0) + 1
        kept = _Kept(tensor)
        weakref.finalize(kept, self._free, address, size)
        return kept

    def unpack(self, kept: Any) -> Tensor:
        return kept.tensor if isinstance(kept, _Kept) else kept

    def _free(self, address: int, size: int) -> None:
        self._uses[address] -= 1
        if not self._uses[address]:
            del self._uses[address]
            self._now -= size


class _Kept:
    """A saved tensor. Autograd drops this object when it frees the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
