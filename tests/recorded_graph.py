"""A stand-in for CUDA graphs that runs on a CPU: what is captured is recorded operation by operation, and undone."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)


class HostSyncError(Exception):
    pass


class NoteAsking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts the operations that ask for a tensor's value into `found`."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASKING:
            self.found.append(func)
        return func(*args, **(kwargs or {}))


class RecordedGraph:
    """Keeps operations with the memory that they read and wrote; to replay them is to do them again in that memory."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, outputs in self.operations:
                found = function(*args, **kwargs)
                for old, new in zip(outputs, _tensors(found), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes the place of `torch.cuda.graph`: does and records what is done within it; after that, nothing was done."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ASKING:
            raise HostSyncError(func)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        found = func(*args, **kwargs)
        self.graph.operations.append((func, args, kwargs, _tensors(found)))
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for tensor, value in self.before.values():
                tensor.copy_(value)


def _tensors(found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
