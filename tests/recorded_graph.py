"""A stand-in for CUDA graphs that runs on a CPU: a capture records each operation, and undoes it at the end."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from mnist_amp.torch_internals import TorchDispatchMode, tree_leaves

# operations that read the value of a tensor; on a GPU the host would wait for it
HOST_SYNCS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)


class HostSyncError(Exception):
    """An operation read the value of a tensor during a capture."""


class RecordHostSyncs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Appends the operations that read the value of a tensor to `found`."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in HOST_SYNCS:
            self.found.append(func)
        return func(*args, **(kwargs or {}))


class RecordedGraph:
    """Replaces `torch.cuda.CUDAGraph`: it holds operations with the memory that they read and write.

    A replay runs the operations again, in the same memory.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, outputs in self.operations:
                results = _tensors(function(*args, **kwargs))
                for output, result in zip(outputs, results, strict=True):
                    if output.data_ptr() != result.data_ptr():
                        output.copy_(result)


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces `torch.cuda.graph`: it runs and records the operations in its context, and then undoes their writes."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HOST_SYNCS:
            raise HostSyncError(func)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        result = func(*args, **kwargs)
        self.graph.operations.append((func, args, kwargs, _tensors(result)))
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for tensor, value in self.before.values():
                tensor.copy_(value)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
