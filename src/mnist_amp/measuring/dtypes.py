"""The precision of each operation, layer and CUDA kernel of a step, recorded while they run."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from mnist_amp.measuring.profile_records import Kernel, Layer, Operation
from mnist_amp.measuring.step_parts import Recorder
from mnist_amp.torch_internals import TorchDispatchMode, tree_leaves

# In the name of a kernel: the tensor-core instruction, its shape, or a family of kernels made for it. NVIDIA's own list
# is TC_Allowlist in torch-tb-profiler.
TENSOR_CORES = re.compile(r"hmma|gmma|xmma|tensorop|nvjet|tf32|[hsc]884|[hsc]1688|16816")
ORDINARY_CORES = re.compile(r"simt|ffma|dfma")  # members of these families that use none


class OperationLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations on tensors within steps, except views.

    Args:
        recorder: its innermost part is that of an operation; between two steps nothing is counted.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.counts: Counter[tuple[str, str, str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, output, name = dtypes((args, kwargs)), dtypes(result), func.overloadpacket.__name__
        if self.recorder.parts and (inputs or output) and not func.is_view:
            self.counts[self.recorder.parts[-1], name, inputs, output] += 1
        return result

    def operations(self) -> list[Operation]:
        return [Operation(*operation, count) for operation, count in self.counts.items()]


def dtypes(values: Any) -> str:
    """Name the types of the tensors in nested containers, each once.

    >>> dtypes(([torch.zeros(1), torch.zeros(2)], {"a": torch.zeros(1, dtype=torch.float16)}))
    'float32, float16'
    """
    names = (str(leaf.dtype).removeprefix("torch.") for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return ", ".join(dict.fromkeys(names))


class LayerLog:
    """Records the layers that run in its context, and the first one that makes a non-finite value of finite ones.

    A layer is a module without modules in it.

        with LayerLog(module).recording() as log:
            module(images)
        print(log.layers, log.non_finite)

    Attributes:
        layers: an entry for each layer that ran, and for each combination of types.
        non_finite: name of the first layer with a non-finite output; with `before ` if its inputs are not finite
            either, because the code between two layers made them so; None if there is none.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: list[Layer] = []
        self.non_finite: str | None = None

    @contextmanager
    def recording(self) -> Iterator[Self]:
        with ExitStack() as stack:
            for name, layer in self.module.named_modules():
                if name and not list(layer.children()):
                    stack.callback(layer.register_forward_hook(self._recorder(name)).remove)
            yield self

    def _recorder(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, inputs: Any, output: Any) -> None:
            weight = dtypes(list(layer.parameters()))
            entry = Layer(name, type(layer).__name__, weight, dtypes(inputs), dtypes(output))
            if entry not in self.layers:
                self.layers.append(entry)
            if self.non_finite is None and not _is_finite(output):
                self.non_finite = name if _is_finite(inputs) else f"before {name}"

        return record


def _is_finite(values: Any) -> bool:
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def used_tensor_cores(kernel: str) -> bool:
    """Whether a CUDA kernel used tensor cores, by its name: without a hardware profiler, nothing else shows it."""
    name = kernel.lower()
    return bool(TENSOR_CORES.search(name)) and not ORDINARY_CORES.search(name)


def kernels_of(profiler: torch.profiler.profile) -> list[Kernel]:
    """Return the CUDA kernels in a profile of CUDA's activity, those that took longest first."""
    times: Counter[str] = Counter()
    for event in profiler.events():  # type: ignore[no-untyped-call]
        if event.device_type.name == "CUDA" and not event.is_user_annotation:
            times[event.name] += event.time_range.elapsed_us()
    total = sum(times.values()) or 1
    return [Kernel(name, time / total, used_tensor_cores(name)) for name, time in times.most_common()]
