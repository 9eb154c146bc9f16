"""What really runs: the precision in effect, the device, the versions."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch import Trainer

from mnist_amp import __version__
from mnist_amp.runs.checkpoint_contents import RunInfo


def effective_precision(trainer: Trainer) -> str:
    """Return the precision in effect, such as `bf16-mixed` where `16-mixed` was asked for on a CPU."""
    return str(trainer.precision_plugin.precision)


def described_precision(trainer: Trainer) -> str:
    """Return the precision in effect, with a word on TF32 where float32 matrix products use it."""
    effective, device = effective_precision(trainer), trainer.strategy.root_device
    tf32 = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    if tf32 and effective == "32-true" and torch.cuda.get_device_capability(device)[0] >= 8:
        return f"{effective} with TF32"
    return effective


def change_of_precision(trainer: Trainer, checkpoint: Mapping[str, Any]) -> str | None:
    """Say what becomes of a checkpoint's loss scale where a run goes on in another precision; None if it does not."""
    before, now = RunInfo.of(checkpoint).precision, effective_precision(trainer)
    if before in (None, now):
        return None
    scale, scaler = checkpoint.get("MixedPrecision", {}).get("scale"), getattr(trainer.precision_plugin, "scaler", None)
    text = f"precision {before} -> {now}"
    if scale is not None:
        text += f" (its loss scale, {scale:,g}, is {'kept' if scaler else f'left behind, as {now} needs none'})"
    elif scaler is not None:
        text += f" (with a new loss scale, {scaler.get_scale():,g})"
    return text


def device_name(trainer: Trainer) -> str:
    """Return what the run computes on, such as `2 x CPU (x86_64, threads: 1)` or `NVIDIA H200`."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type.upper()} ({platform.machine()}, threads: {torch.get_num_threads()})"
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def half_hardware(trainer: Trainer, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether the device has instructions for matrix products in a dtype; without them they are emulated, slowly.

    Args:
        trainer: with the device.
        dtype: bfloat16 or float16.
    """
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= (7 if dtype == torch.float16 else 8)
    if device.type != "cpu":
        return True  # of Apple's
    if dtype == torch.bfloat16 and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    return has_onednn and bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())


def versions() -> dict[str, str]:
    """Return the versions that a measurement depends on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics")
    return {
        "mnist-amp": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
