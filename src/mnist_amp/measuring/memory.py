"""How much memory training uses, and for what."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mnist_amp.measuring.compare_records import MemoryUse
from mnist_amp.measuring.module_access import compute_loss, dataset_bytes, images_of, labels_of
from mnist_amp.torch_internals import tree_leaves


def measure_memory(trainer: Trainer, module: LightningModule, batch: Any) -> MemoryUse:
    """Return the bytes of memory by what they hold, after a training step.

    The parts are weights, gradients, optimizer state, the images of a batch, and activations. Activations are all else
    that the forward pass keeps for the backward pass, so also the copies of images and weights in half precision.
    `peak` is the most that was allocated on a CUDA device since its statistics were reset, and `data` is the part of it
    that holds the images of the data set. Both are None on a CPU, where torch does not count.
    """
    on_cuda = trainer.strategy.root_device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_cuda else None  # before this function allocates
    parameters = list(module.parameters())
    states = tree_leaves([list(state.values()) for state in trainer.optimizers[0].state.values()])
    return MemoryUse(
        weights=sum(parameter.nbytes for parameter in parameters),
        gradients=sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None),
        optimizer=sum(state.nbytes for state in states if isinstance(state, Tensor)),
        batch=images_of(batch).nbytes,
        activations=_bytes_kept_for_backward(trainer, module, batch),
        peak=peak,
        data=dataset_bytes(trainer) if on_cuda else None,
    )


def _bytes_kept_for_backward(trainer: Trainer, module: LightningModule, batch: Any) -> int:
    inputs = (images_of(batch), labels_of(batch), *module.parameters())
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    kept: dict[int, Tensor] = {}  # by address; they stay alive, so no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.enable_grad(), trainer.precision_plugin.forward_context(), hooks:
        compute_loss(module, batch)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in known)
