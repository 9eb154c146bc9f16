"""What the memory of training is spent on."""

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mnist_amp.data.loader import Batch


def memory(trainer: Trainer, module: LightningModule, batch: Batch) -> dict[str, int | None]:
    """Return bytes by what they hold, after a step: weights, gradients, optimizer state, and activations.

    The activations are all tensors that the forward pass keeps for the backward pass, the copies of weights in half
    precision among them, and the batch. `peak` is the most that was allocated at once on a CUDA device since its
    statistics were reset, of which `data` is the images of the data set; None on a CPU, where torch does not count.
    """
    parameters = list(module.parameters())
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    on_cuda = trainer.strategy.root_device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_cuda else None
    return {
        "weights": sum(parameter.nbytes for parameter in parameters),
        "gradients": sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None),
        "optimizer": sum(state.nbytes for state in states if isinstance(state, Tensor)),
        "activations": _kept_for_backward(trainer, module, batch),
        "peak": peak,
        "data": cast(Any, trainer).datamodule.images.nbytes if on_cuda else None,
    }


def _kept_for_backward(trainer: Trainer, module: LightningModule, batch: Batch) -> int:
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # the batch is a view of many images; only its own part counts
        kept[storage.data_ptr()] = min(storage.nbytes(), tensor.nbytes)
        held.append(tensor)  # or the next one could be at its address
        return tensor

    held: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.enable_grad(), trainer.precision_plugin.forward_context(), hooks:
        cast(Any, module).loss_of(batch)
    return sum(size for address, size in kept.items() if address not in own)
