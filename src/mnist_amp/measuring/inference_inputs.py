"""The inputs of inference: those of a batch as training and validation get it, in any number."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mnist_amp.errors import RunError

LABELS = ("labels", "label", "targets", "target", "y")  # names in a batch with names
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Keywords(dict[str, Any]):
    """Inputs that `forward` takes by keyword."""


class TrainingInputs(Callback):
    """Keeps the first batch of a fit, and the first tensors of its first batches.

    They are copies, with floating-point numbers as float32.

    Args:
        wanted: number of inputs to keep, rounded up to complete batches.

    Attributes:
        batch: on the device; None before training.
        inputs: of each batch, (N, ...), on the CPU.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.batch: Any = None
        self.inputs: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.batch is None:
            self.batch = copied(batch)
        first = first_tensor(batch)
        if first is not None and sum(map(len, self.inputs)) < self.wanted:
            self.inputs.append(_widened(first.detach().to("cpu", copy=True)))


class ValidationBatch(Callback):
    """Keeps a copy of the first batch of a validation.

    Attributes:
        batch: on the device; None without validation.
    """

    def __init__(self) -> None:
        self.batch: Any = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.batch is None:
            self.batch = copied(batch)


def copied(batch: Any) -> Any:
    """Return a batch with copies of its tensors; floating-point ones as float32."""
    return apply_to_collection(batch, Tensor, lambda tensor: _widened(tensor.detach().clone()))


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def first_tensor(batch: Any) -> Tensor | None:
    """Return the first tensor of a batch with at least one dimension; None if there is none.

    >>> first_tensor({"ids": torch.zeros(2, 3), "labels": torch.zeros(2)}).shape
    torch.Size([2, 3])
    """
    return next((tensor for tensor in _tensors(batch) if tensor.ndim > 0), None)


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []
    apply_to_collection(batch, Tensor, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def labels_of(batch: Any) -> Tensor | None:
    """Return the labels (N,) of a batch: integers, one for each of the N inputs; None if there are none.

    A tensor that is called labels or targets is preferred to others.

    >>> labels_of([torch.zeros(2, 3), torch.tensor([1, 0])])
    tensor([1, 0])
    """
    inputs = first_tensor(batch)
    if inputs is None:
        return None
    names = batch._asdict() if isinstance(batch, tuple) and hasattr(batch, "_asdict") else batch
    named = [names[name] for name in LABELS if name in names] if isinstance(names, Mapping) else []
    candidates = [found for found in [*named, *_tensors(batch)] if isinstance(found, Tensor) and found is not inputs]
    return next((found for found in candidates if found.dtype in INTEGERS and found.shape == inputs.shape[:1]), None)


def resized(inputs: Any, size: int) -> Any:
    """Return inputs for another batch size: repeated, or cut off.

    >>> resized(torch.tensor([[1], [2]]), 3).tolist()
    [[1], [2], [1]]

    Args:
        inputs: a tensor (N, ...), or a collection with tensors. Tensors of another length than the first are kept.
        size: number of inputs.
    """
    first = first_tensor(inputs)
    assert first is not None
    length = len(first)
    rows = torch.arange(size, device=first.device) % length

    def resize(tensor: Tensor) -> Tensor:
        return tensor[rows] if tensor.ndim and len(tensor) == length else tensor

    return apply_to_collection(inputs, Tensor, resize)


def call_forward(module: LightningModule, inputs: Any) -> Any:
    """Return what `forward` returns for inputs from `find_inputs`."""
    return module(**inputs) if isinstance(inputs, Keywords) else module(inputs)


def find_inputs(module: LightningModule, batch: Any) -> Any:
    """Return the part of a batch that `forward` takes: for a batch with names the batch itself, else its first tensor.

    Args:
        module: in the state and on the device of inference.
        batch: as `validation_step` gets it.

    Raises:
        RunError: `forward` takes none of them, or the module has no `forward`.
    """
    if not is_overridden("forward", module, LightningModule):
        raise RunError("the module has no forward")
    first = first_tensor(batch)
    if first is None or not len(first):
        raise RunError("a batch has no tensor with inputs")
    candidates = [batch, Keywords(batch), first] if isinstance(batch, Mapping) else [first]
    for inputs in candidates:
        try:
            with torch.inference_mode():
                call_forward(module, resized(inputs, 1))
        except Exception as found:
            error = found
        else:
            return inputs
    raise RunError(f"forward does not take the first tensor of a batch, {tuple(first.shape)}: {short_error(error)}")


def short_error(error: Exception) -> str:
    r"""Return the class of an error, and the first line of its message.

    >>> short_error(TypeError("a float is needed\nin forward"))
    'TypeError: a float is needed'
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")
