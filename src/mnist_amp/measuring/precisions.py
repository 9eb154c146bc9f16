"""The precisions that a comparison can have, each with the options of `fit` that choose it. These are its rows.

Another kind of row is another entry of `PRECISIONS`: a name, and options of `fit`.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from mnist_amp.errors import RequestError

FP16_CPU = {
    "class_path": "lightning.pytorch.plugins.MixedPrecision",
    "init_args": {"precision": "16-mixed", "device": "cpu"},
}
# Lightning's own precisions. transformer-engine is fp8 with bfloat16 weights.
LIGHTNINGS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "transformer-engine")
PLUGINS = "plugins"  # the precision plugin that the settings give, such as Float32Layers
PRECISIONS: dict[str, dict[str, Any]] = {
    **{
        name: {"trainer.precision": name, "trainer.plugins": None, "matmul_precision": "highest"} for name in LIGHTNINGS
    },
    "tf32": {"trainer.precision": "32-true", "trainer.plugins": None, "matmul_precision": "high"},
    "fp16-cpu": {"trainer.precision": None, "trainer.plugins": FP16_CPU},
    PLUGINS: {"trainer.precision": None, "matmul_precision": "highest"},
}
FP8 = (8, 9)  # CUDA capability


def check(names: Sequence[str], cuda: bool, has_plugins: bool) -> None:
    """Check the precisions of a comparison.

    Args:
        names: the first is the baseline.
        cuda: whether the fits use a CUDA device.
        has_plugins: whether the settings have trainer.plugins.

    Raises:
        RequestError: a precision is unknown or can't be measured here, or there are too few.
    """
    for name in names:
        if name not in PRECISIONS:
            raise RequestError(f"precisions has {name}; it takes {', '.join(PRECISIONS)}.")
        if (reason := unavailable(name, cuda)) is not None:
            raise RequestError(f"precisions has {name}, {reason}")
    if len(set(names)) < max(2, len(names)):
        raise RequestError("precisions needs at least two that differ.")
    if PLUGINS in names and not has_plugins:
        raise RequestError(f"precisions has {PLUGINS}, but trainer.plugins is not set. Set it, or leave {PLUGINS} out.")
    if has_plugins and PLUGINS not in names:
        text = f"[{','.join([*names, PLUGINS])}]"
        raise RequestError(f"trainer.plugins is measured as a precision of its own: give --precisions '{text}'.")


def unavailable(name: str, cuda: bool) -> str | None:
    """Return why a precision can't be measured here, and what to do; None if it can.

    Args:
        name: a key of `PRECISIONS`.
        cuda: whether the fits use a CUDA device.
    """
    if name == "fp16-cpu" and cuda:
        return "but the fits use a GPU. Add --trainer.accelerator cpu."
    if name == "transformer-engine":
        if not cuda or torch.cuda.get_device_capability() < FP8:
            return "which needs a CUDA device with fp8, such as an H100. Leave it out."
        if importlib.util.find_spec("transformer_engine") is None:
            return "which needs the package transformer_engine. Install it, or leave it out."
    return None


def usual(cuda: bool) -> list[str]:
    """Return the precisions of a comparison that names none; the first is the baseline."""
    if not cuda:
        return ["32-true", "bf16-mixed", "16-mixed"]
    fp8 = ["transformer-engine"] if unavailable("transformer-engine", cuda) is None else []
    return ["32-true", "tf32", "bf16-mixed", "16-mixed", *fp8]
