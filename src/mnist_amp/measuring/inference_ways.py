"""The ways of inference that torch offers: the weights and the arithmetic of a module in each precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision, Precision

from mnist_amp.measuring.inference_inputs import call_forward
from mnist_amp.measuring.inference_records import BASELINE
from mnist_amp.training.precision import set_matmul_precision

TF32 = "tf32"
DTYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16}  # of the weights, if they are not float32


class Way(Protocol):
    """A way of inference, ready to be timed. `prepare` is called before calls of `run`, after another way has run."""

    @property
    def name(self) -> str: ...

    def prepare(self) -> None: ...

    def convert(self, inputs: Any) -> Any:
        """Return inputs (N, ...) as `run` takes them."""

    def run(self, inputs: Any) -> Any: ...


class Weights:
    """The tensors that a module has now as its parameters and buffers, to be put back without a copy."""

    def __init__(self, module: LightningModule) -> None:
        self.parameters = [(parameter, parameter.data) for parameter in module.parameters()]
        self.buffers = [
            (owner, name, buffer) for owner in module.modules() for name, buffer in owner.named_buffers(recurse=False)
        ]

    def restore(self) -> None:
        for parameter, data in self.parameters:
            parameter.data = data
        for owner, name, buffer in self.buffers:
            setattr(owner, name, buffer)


class TorchWay:
    """Inference by torch, as Lightning runs it in a precision.

    All ways of a module share it. `prepare` exchanges its weights: converting them in place each time would take longer
    than many calls, and a deep copy of a module may copy its Trainer and data.

    Args:
        name: of a precision of Lightning, or `tf32`.
        module: on the device that it is to run on.
        original: its weights.
    """

    def __init__(self, name: str, module: LightningModule, original: Weights) -> None:
        self.name, self.module, self.original, self.device = name, module, original, module.device
        self.precision: Any = BASELINE if name == TF32 else name
        self.plugin = _plugin(self.precision, module.device.type)
        self.dtype = DTYPES.get(name, torch.float32)
        self.matmul = "high" if name == TF32 else "highest"
        self.weights: Weights | None = None

    def prepare(self) -> None:
        (self.weights or self.original).restore()
        # also later, because a LightningModule keeps both as attributes, and a Trainer moves it to the CPU at its end
        self.module.to(self.device, self.dtype)
        self.weights = self.weights or Weights(self.module)
        self.module.eval()
        set_matmul_precision(self.matmul)

    def convert(self, inputs: Any) -> Any:
        return self.plugin.convert_input(inputs)

    def run(self, inputs: Any) -> Any:
        with torch.inference_mode(), self.plugin.forward_context():
            return call_forward(self.module, inputs)


def _plugin(precision: Any, device: str) -> Precision:
    if precision == "bf16-mixed":
        return MixedPrecision(precision, device)
    return HalfPrecision(precision) if precision in DTYPES else Precision()


def torch_ways(module: LightningModule) -> list[TorchWay]:
    """Return the ways of a module on its device, float32 first."""
    original = Weights(module)
    names = [BASELINE, *([TF32] if module.device.type == "cuda" else []), "bf16-mixed", *DTYPES]
    return [TorchWay(name, module, original) for name in names]


class _State(NamedTuple):
    training: bool
    device: torch.device
    dtype: torch.dtype | str
    matmul: str
    convolutions: bool


@contextmanager
def restored(module: LightningModule) -> Iterator[None]:
    """Restore the weights and the mode of a module, and torch's settings, at the end of this context."""
    weights, trainer = Weights(module), module.trainer
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    state = _State(module.training, module.device, module.dtype, matmul, convolutions)
    try:
        yield
    finally:
        module.to(state.device, state.dtype)
        weights.restore()
        module.train(state.training)
        module.trainer = trainer
        torch.set_float32_matmul_precision(state.matmul)
        torch.backends.cudnn.allow_tf32 = state.convolutions
