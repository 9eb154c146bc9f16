"""Which precision each operation of a step ran in, recorded from the operations themselves."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnist_amp.measuring.step_parts import Recorder
from mnist_amp.torch_internals import TorchDispatchMode, tree_leaves

# in a kernel's name: the tensor-core instruction or its shape, or a family of kernels made for them;
# NVIDIA's own list is in torch-tb-profiler, TC_Allowlist
TENSOR_CORES = re.compile(r"hmma|gmma|xmma|tensorop|nvjet|tf32|[hsc]884|[hsc]1688|16816")
ORDINARY_CORES = re.compile(r"simt|ffma|dfma")  # families named above have such members, too


class Operation(NamedTuple):
    """An ATen operation in a part of a step, with the types of its tensors; `output` is empty if it has none."""

    part: str
    name: str
    inputs: str
    output: str


class OperationLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations on tensors within steps, but for those that only view one differently."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.counts: Counter[Operation] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, output, name = dtypes((args, kwargs)), dtypes(result), func.overloadpacket.__name__
        if self.recorder.parts and (inputs or output) and not func.is_view:
            self.counts[Operation(self.recorder.parts[-1], name, inputs, output)] += 1
        return result

    def rows(self) -> list[dict[str, Any]]:
        return [{**operation._asdict(), "count": count} for operation, count in self.counts.items()]


def dtypes(values: Any) -> str:
    """Name the types of the tensors in a nest of values, each once."""
    names = (str(leaf.dtype).removeprefix("torch.") for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return ", ".join(dict.fromkeys(names))


@contextmanager
def layers_of(model: nn.Module) -> Iterator[list[dict[str, str]]]:
    """Give a list which gets a row for each layer that runs in this context."""
    rows: list[dict[str, str]] = []
    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(_noting(name, rows)) for name, layer in layers]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _noting(name: str, rows: list[dict[str, str]]) -> Callable[[nn.Module, Any, Any], None]:
    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        weight = dtypes(list(layer.parameters()))
        row = {"layer": name, "kind": type(layer).__name__, "weight": weight}
        row |= {"input": dtypes(inputs), "output": dtypes(output)}
        if row not in rows:
            rows.append(row)

    return note


def used_tensor_cores(kernel: str) -> bool:
    """Tell by a CUDA kernel's name, as nothing else tells it without a hardware profiler."""
    name = kernel.lower()
    return bool(TENSOR_CORES.search(name)) and not ORDINARY_CORES.search(name)


def kernel_rows(profiler: torch.profiler.profile) -> list[dict[str, Any]]:
    """Return the CUDA kernels that a profiler of CUDA's activity saw, those that took longest first."""
    times: Counter[str] = Counter()
    for event in profiler.events():  # type: ignore[no-untyped-call]
        if event.device_type.name == "CUDA" and not event.is_user_annotation:
            times[event.name] += event.time_range.elapsed_us()
    total = sum(times.values()) or 1
    return [
        {"kernel": name, "share": time / total, "tensor_cores": used_tensor_cores(name)}
        for name, time in times.most_common()
    ]
