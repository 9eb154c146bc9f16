"""What the memory of training is spent on."""

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor


def memory(trainer: Trainer, module: LightningModule, batch: Any) -> dict[str, int | None]:
    """Return bytes by what they hold, after a step.

    The parts are weights, gradients, optimizer state, a batch of images, and activations: what else the forward pass
    keeps for the backward pass, and so the copies in half precision of the images and of weights, too. `peak` is the
    most that was allocated at once on a CUDA device since its statistics were reset, of which `data` is the images of
    the data set; None on a CPU, where torch does not count.
    """
    on_cuda = trainer.strategy.root_device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_cuda else None  # before what is done here
    parameters = list(module.parameters())
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return {
        "weights": sum(parameter.nbytes for parameter in parameters),
        "gradients": sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None),
        "optimizer": sum(state.nbytes for state in states if isinstance(state, Tensor)),
        "batch": batch.images.nbytes,
        "activations": _kept_for_backward(trainer, module, batch),
        "peak": peak,
        "data": cast(Any, trainer).datamodule.images.nbytes if on_cuda else None,
    }


def _kept_for_backward(trainer: Trainer, module: LightningModule, batch: Any) -> int:
    known = {tensor.untyped_storage().data_ptr() for tensor in (batch.images, batch.labels, *module.parameters())}
    kept: dict[int, Tensor] = {}  # by where it begins; they stay alive, so none takes another's place

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.enable_grad(), trainer.precision_plugin.forward_context(), hooks:
        cast(Any, module).loss_of(batch)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known)
