"""The precision of each operation, layer and CUDA kernel of a step, recorded while they run."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def layers_of(model: nn.Module) -> Iterator[list[Layer]]:
    """Yield a list that gets an entry for each layer that runs in this context."""
    found: list[Layer] = []
    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(_recording(name, found)) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _recording(name: str, found: list[Layer]) -> Callable[[nn.Module, Any, Any], None]:
    def record(layer: nn.Module, inputs: Any, output: Any) -> None:
        weight = dtypes(list(layer.parameters()))
        entry = Layer(name, type(layer).__name__, weight, dtypes(inputs), dtypes(output))
        if entry not in found:
            found.append(entry)

    return record


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
