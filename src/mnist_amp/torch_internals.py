"""Every private name of torch's that this project uses, each with the reason; see also `lightning_internals`."""

import importlib.util
import os
import platform
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# TorchDispatchMode, tree_leaves, tree_map: torch documents them in its notes on extending torch, but no public module
# has them
__all__ = [
    "METADATA_ASSERT",
    "TorchDispatchMode",
    "compile_gradients",
    "compiler_problem",
    "cpu_multiplies",
    "found_infs",
    "has_vnni",
    "inner_schedules",
    "is_of_compiler",
    "mark_as_stepped",
    "metadata_of",
    "milestones_of",
    "notice_new_hooks",
    "refused_recompiles",
    "schedules_within",
    "tree_leaves",
    "tree_map",
    "unscales_by_itself",
    "with_metadata",
]

# an exported program uses this operation to check that its inputs are on the device of the export
METADATA_ASSERT = torch.ops.aten._assert_tensor_metadata.default


def metadata_of(state_dict: Any) -> dict[str, Any]:
    """Return the metadata of a module's state_dict, which is saved with it. They may be changed.

    Weights in a plain dict have none.
    """
    metadata: dict[str, Any] = getattr(state_dict, "_metadata", {})
    return metadata


def with_metadata(state_dict: Mapping[str, Tensor], entry: str, metadata: dict[str, Any]) -> dict[str, Tensor]:
    """Return a state_dict with an entry in its metadata, which `load_state_dict` ignores."""
    found = OrderedDict(state_dict)
    found._metadata = OrderedDict({**metadata_of(state_dict), entry: metadata})  # type: ignore[attr-defined]
    return found


def inner_schedules(schedule: Any) -> list[Any]:
    """Return the schedules that a SequentialLR or ChainedScheduler is composed of, which hide them; else nothing."""
    return list(getattr(schedule, "_schedulers", []))


def schedules_within(schedule: Any) -> list[Any]:
    """Return a learning-rate schedule and all schedules inside of it."""
    return [schedule, *(each for part in inner_schedules(schedule) for each in schedules_within(part))]


def milestones_of(schedule: Any) -> list[int]:
    """Return the steps at which a SequentialLR changes to its next schedule; nothing for another schedule."""
    return list(getattr(schedule, "_milestones", []))


def found_infs(scaler: torch.amp.GradScaler) -> Iterator[Tensor]:
    """Yield () float for each optimizer and device: 1 if gradients of the newest step were infinite or NaN, else 0.

    torch publishes the result only on a fused optimizer, as `optimizer.found_inf`.
    """
    for state in scaler._per_optimizer_states.values():
        yield from state["found_inf_per_device"].values()


def unscales_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer divides fp16 gradients by the loss scale within its step, as fused ones do.

    The attribute is how an optimizer tells the GradScaler so; torch has no public name for it.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for matrix products in bfloat16 or float16; torch has no public test for it."""
    if dtype == torch.bfloat16 and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def has_vnni() -> bool:
    """Whether this CPU has instructions for exact sums of int8 products (VNNI); torch has no public test for it.

    Without them, an x86 CPU sums pairs of products of int8 in 16 bits, which may be too few.
    """
    return bool(torch.cpu._is_vnni_supported())


def compiler_problem(device: str) -> str | None:
    """Return why torch.compile can't generate code for a kind of device, and what to do; None if it can.

    torch reports it only when it compiles, in a long message. It has no public test for it.
    """
    if device == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return None if found else "torch.compile needs the package triton, which is missing. Install it"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):  # a file that may not be run is an OSError
        if named := os.environ.get("CXX"):
            return f"CXX is {named}, which can't be run. Name another C++ compiler in this environment variable"
        return "no C++ compiler is found. Install g++, name one in the environment variable CXX"
    return None


def is_of_compiler(error: Exception) -> bool:
    """Whether an error is of torch.compile, about code that it can't compile. These errors have no public names."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, TorchDynamoException | FailOnRecompileLimitHit)


@contextmanager
def refused_recompiles() -> Iterator[None]:
    """Have a compiled function raise an error in this context, instead of being compiled again.

    torch's public way, `torch.compiler.set_stance`, raises a plain RuntimeError, which may be of the network.
    """
    from torch._dynamo import config
    from torch._dynamo.exc import RecompileError

    try:
        with config.patch(error_on_recompile=True):
            yield
    except RecompileError as error:
        raise RecompileError("a Python variable of the network changes in each step") from error


def compile_gradients() -> bool:
    """Let torch.compile trace `torch.autograd.grad`, which it would refuse; return False if this torch can't.

    torch has no public switch for it.
    """
    from torch._dynamo import config

    if not hasattr(config, "trace_autograd_ops"):
        return False
    config.trace_autograd_ops = True
    return True


def notice_new_hooks() -> None:
    """Let compiled functions notice hooks that a layer gets later. torch has no public switch for it."""
    from torch._dynamo import config

    config.skip_nnmodule_hook_guards = False


def mark_as_stepped(optimizer: torch.optim.Optimizer) -> None:
    """Mark that an optimizer takes steps, although its method `step` is not called.

    Otherwise a schedule warns at its first step. torch has no public way to tell it.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]
