"""The effective precision of a Trainer, its device, and the versions of the packages."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch import Trainer

from mnist_amp import __version__
from mnist_amp.runs.checkpoint_contents import RunInfo
from mnist_amp.torch_internals import cpu_multiplies
from mnist_amp.training.float32_layers import Float32Layers
from mnist_amp.wording import counted

EMULATED_SPEED = 0.46  # of bf16-mixed, as a multiple of that of 32-true, in docs/results/verdict-cpu.md


def effective_precision(trainer: Trainer) -> str:
    """Return the effective precision, such as `bf16-mixed` if `16-mixed` was requested on a CPU."""
    return str(trainer.precision_plugin.precision)


def described_precision(trainer: Trainer) -> str:
    """Return the effective precision, with `with TF32` if float32 products use it, and layers that stay in float32."""
    effective, device = effective_precision(trainer), trainer.strategy.root_device
    if isinstance(trainer.precision_plugin, Float32Layers):
        return f"{effective} with {counted(len(trainer.precision_plugin.layers), 'layer')} in float32"
    tf32 = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    if tf32 and effective == "32-true" and torch.cuda.get_device_capability(device)[0] >= 8:
        return f"{effective} with TF32"
    return effective


def set_matmul_precision(precision: str) -> None:
    """Set torch's precision of float32 matrix products and convolutions: with TF32, unless it is `highest`."""
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"  # torch lets convolutions use TF32 by default


def product_dtype(trainer: Trainer) -> torch.dtype:
    """Return the dtype in which matrix products run in the effective precision."""
    kinds = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64, "transformer-engine": torch.bfloat16}
    found = (dtype for name, dtype in kinds.items() if effective_precision(trainer).startswith(name))
    return next(found, torch.float32)


def change_of_precision(trainer: Trainer, checkpoint: Mapping[str, Any]) -> str | None:
    """Describe the change from a checkpoint's precision, and what happens to its loss scale; None if it is the same."""
    before, now = RunInfo.of(checkpoint).precision, effective_precision(trainer)
    if before in (None, now):
        return None
    scale, scaler = checkpoint.get("MixedPrecision", {}).get("scale"), getattr(trainer.precision_plugin, "scaler", None)
    text = f"precision {before} -> {now}"
    if scale is not None:
        text += f" (its loss scale, {scale:,g}, is {'kept' if scaler else f'dropped because {now} needs none'})"
    elif scaler is not None:
        text += f" (with a new loss scale, {scaler.get_scale():,g})"
    return text


def device_name(trainer: Trainer) -> str:
    """Return the name of the device, such as `2 x CPU (x86_64, threads: 1)` or `NVIDIA H200`."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type.upper()} ({platform.machine()}, threads: {torch.get_num_threads()})"
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def half_hardware(trainer: Trainer, dtype: torch.dtype = torch.bfloat16) -> bool | None:
    """Whether the device has instructions for matrix products in a dtype. Without them it emulates them, slowly.

    Args:
        trainer: the Trainer with the device.
        dtype: bfloat16 or float16.

    Returns:
        None if it is not known, as on Apple's GPUs, which report no such thing.
    """
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= (7 if dtype == torch.float16 else 8)
    return cpu_multiplies(dtype) if device.type == "cpu" else None


def advice(trainer: Trainer) -> str | None:
    """Return the precision to use instead, if the device emulates the effective one; None if it does not."""
    dtype, device = product_dtype(trainer), trainer.strategy.root_device.type
    if dtype not in (torch.bfloat16, torch.float16) or half_hardware(trainer, dtype) is not False:
        return None
    if device == "cuda":
        better = "16-mixed" if dtype == torch.bfloat16 and half_hardware(trainer, torch.float16) else "32-true"
        name = "bfloat16" if dtype == torch.bfloat16 else "fp16"
        return f"use --trainer.precision {better}: this GPU has no instructions for {name}, so PyTorch emulates it"
    if dtype == torch.float16:
        return (
            "use --trainer.precision 32-true, unless you try the code path of a GPU: this CPU has no instructions for "
            "fp16, so PyTorch emulates it"
        )
    return (
        "use --trainer.precision 32-true: this CPU has no instructions for bfloat16, so PyTorch emulates it "
        f"({EMULATED_SPEED} times as fast as 32-true where it was measured; `mnist-amp compare` measures it here)"
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that a measurement depends on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics")
    return {
        "mnist-amp": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
