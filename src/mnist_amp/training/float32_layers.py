"""Layers that stay in float32 while the rest of a network trains in mixed precision.

fp16 ends at 65504. If the output of one layer is larger, the loss of the whole network becomes infinite or NaN, and no
loss scale helps. Such a layer can run in float32, and all others keep the speed of half precision.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mnist_amp.errors import RequestError
from mnist_amp.torch_internals import tree_map

DEVICES = ("cpu", "cuda", "mps", "xpu")  # that may autocast
SHOWN = 8  # names of layers in a message
STATE = "MixedPrecision"  # where a checkpoint has the state of the scaler, by Lightning's rule the name of the class

Parameters = ParamSpec("Parameters")
Output = TypeVar("Output")


class Float32Layers(MixedPrecision):
    r"""Lightning's mixed precision, except that some layers run in float32.

        trainer = Trainer(plugins=Float32Layers(layers=["model.fc2"]))

    On the command line:

        mnist-amp fit --trainer.precision null \
            --trainer.plugins mnist_amp.training.float32_layers.Float32Layers --trainer.plugins.layers '[model.fc2]'

    In these layers and their submodules autocast is off, and inputs of lower precision are converted to float32. The
    output is float32. The operations after it choose their precision as always in autocast: a matrix product
    converts it to half precision again. If the output is above 65504, the layer that takes it must run in float32 also.

    A checkpoint has the state of the scaler where `MixedPrecision` has it, so either can resume the other's run.

    Args:
        layers: names of submodules of the LightningModule, as `named_modules()` has them
        precision: of all other layers
        device: the device that autocasts; by default cuda if there is such a device, else cpu
        scaler: of the gradients in fp16; by default a new one

    Raises:
        RequestError: when the module is set up, if it has no layer of such a name.
    """

    def __init__(
        self,
        layers: list[str],
        precision: Literal["16-mixed", "bf16-mixed"] = "16-mixed",
        device: str | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        super().__init__(precision, device or ("cuda" if torch.cuda.is_available() else "cpu"), scaler)
        self.layers = layers
        self.handles: list[RemovableHandle] = []

    def convert_module(self, module: nn.Module) -> nn.Module:
        for handle in self.handles:  # of an earlier run with this plugin
            handle.remove()
        self.handles = run_in_float32(module, self.layers)
        return super().convert_module(module)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if (state := checkpoint.pop(type(self).__qualname__, None)) is not None:
            checkpoint[STATE] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if STATE in checkpoint:
            checkpoint[type(self).__qualname__] = checkpoint[STATE]


def run_in_float32(module: nn.Module, layers: Sequence[str]) -> list[RemovableHandle]:
    """Make layers of a module run in float32 within autocast.

        handles = run_in_float32(network, ["fc2"])
        with torch.autocast("cuda", torch.float16):
            logits = network(images)

    Args:
        module: the hooks are added to its submodules.
        layers: their names, as `named_modules()` has them.

    Returns:
        The handles that remove the hooks.

    Raises:
        RequestError: there is no submodule of that name.
    """
    known = dict(module.named_modules(remove_duplicate=False))
    for name in layers:
        if name not in known or not name:
            raise RequestError(_unknown_layer(name, type(module).__name__, [each for each in known if each]))
    handles = []
    for name in dict.fromkeys(layers):
        hooks = _Float32Hooks()
        handles.append(known[name].register_forward_pre_hook(hooks.enter, with_kwargs=True))
        # also after an error, or autocast would stay off
        handles.append(known[name].register_forward_hook(hooks.leave, always_call=True))
    return handles


def float32(forward: Callable[Parameters, Output]) -> Callable[Parameters, Output]:
    """Decorate a function or a `forward`: within autocast it runs in float32.

    Tensors of lower precision among its arguments are converted to float32, also within lists, tuples and dicts:

        class Energy(nn.Module):
            @float32
            def forward(self, x):
                return x.square().sum(-1)  # in fp16 it would overflow

    Example:
        >>> double = float32(lambda x: 2 * x)
        >>> double(torch.tensor([40000.0], dtype=torch.float16))
        tensor([80000.])
    """

    @functools.wraps(forward)
    def in_float32(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Output:
        with without_autocast():
            return forward(*_to_float32(args), **_to_float32(kwargs))

    return in_float32


@contextmanager
def without_autocast() -> Iterator[None]:
    """Turn autocast off in this context, for all devices. It converts no tensors.

    Example:
        >>> with without_autocast():
        ...     energy = torch.tensor([300.0], dtype=torch.float16).float().square()
    """
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


class _Float32Hooks:
    """The hooks of a layer. Hooks survive `copy.deepcopy`, which a replaced `forward` does not."""

    def __init__(self) -> None:
        self.contexts: list[ExitStack] = []  # of the calls that run, because a layer may call itself

    def enter(self, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        context = ExitStack()
        context.enter_context(without_autocast())
        self.contexts.append(context)
        return _to_float32(args), _to_float32(kwargs)

    def leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        if self.contexts:  # not if a hook before `enter` has failed
            self.contexts.pop().close()


def _to_float32(values: Any) -> Any:
    """Convert the tensors of lower precision in nested containers to float32."""
    return tree_map(lambda value: value.float() if _is_lower(value) else value, values)


def _is_lower(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def _unknown_layer(name: str, module: str, known: list[str]) -> str:
    last = name.rpartition(".")[2]
    near = [each for each in known if each.rpartition(".")[2] == last] or get_close_matches(name, known, SHOWN, 0.75)
    if near:
        hint = f"did you mean {' or '.join(near[:SHOWN])}?"
    else:
        more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
        hint = f"it has {', '.join(known[:SHOWN])}{more}."
    return f"{module} has no layer {name}, which was to run in float32; {hint}"
