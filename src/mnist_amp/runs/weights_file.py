"""Files that hold the weights of a network alone: `model.pth`, the guide's own file, and those of `mnist-amp export`.

Such a file has no progress, no optimizer and no settings. Its width is read from the shapes, and its names may have the
prefixes of LightningModules, of `torch.compile` and of DataParallel.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_amp.errors import RequestError
from mnist_amp.torch_internals import metadata_of

WEIGHTS_ALONE = "mnist_amp_weights_alone"  # the key of a content that `as_checkpoint` made
PREFIXES = ("model.", "module.", "_orig_mod.")
FIRST_LAYER = ("fc1.weight", "fc1.bias")
PIXELS = [0, 255]  # the range of the input for which `mnist-amp export` writes weights
SHOWN = 8  # layers in a message
NO_PROGRESS: dict[str, Any] = {
    "fit_loop": {
        "epoch_progress": {"current": {"ready": 0}},
        "epoch_loop.batch_progress": {"current": {"processed": 0}, "is_last_batch": False},
    },
    **{f"{command}_loop": {} for command in ("validate", "test", "predict")},
}


def is_safetensors(path: Path) -> bool:
    """Whether a file is of the format safetensors: its content or its name says so.

    A file of safetensors begins with eight bytes, the length of a header in JSON.
    """
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:  # whoever reads the file reports the error
        start = file.read(9)
    return start[8:] == b"{" or path.suffix.lower() == ".safetensors"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the weights of a .safetensors file by name, and its input if `mnist-amp export` wrote the file.

    Raises:
        RequestError: the package safetensors is missing, or the file is damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise RequestError(
            f"{path} can be read with the package safetensors only. Install the extra export: "
            "pip install 'mnist-amp[export]'."
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
            metadata = file.metadata() or {}
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise RequestError(f"{path} is not a .safetensors file, or it is truncated or damaged: {error}.") from error
    with contextlib.suppress(ValueError, RecursionError):  # another program's metadata may be any text
        return weights, json.loads(metadata.get("input", "null"))
    return weights, None


def is_plain_weights(content: Any) -> bool:
    """Whether the content of a file is a state_dict: weights by name."""
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    return named and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def exported_input(content: Any) -> Any:
    """Return the input of a state_dict that `mnist-amp export` wrote; None for other weights."""
    metadata: Any = metadata_of(content)  # another program's may be of any type
    ours = metadata.get("mnist_amp") if isinstance(metadata, Mapping) else None
    return ours.get("input") if isinstance(ours, Mapping) else None


def as_checkpoint(path: Path, content: Mapping[str, Tensor], source: Any, version: str) -> dict[str, Any]:
    """Return weights in the form of a checkpoint of LitSimpleNN that has trained nothing.

    Args:
        path: of the file, named in messages.
        content: the weights by name, of any floating dtype.
        source: the input of an exported file, from its metadata; anything else for other files.
        version: of Lightning.

    Raises:
        RequestError: they are not those of a SimpleNN.
    """
    weights = without_prefixes(content)
    width = _width(weights) if all(map(_is_dense_float, weights.values())) else 0
    if width == 0:
        raise RequestError(f"{path} does not hold the weights of a SimpleNN. Its layers are {_described(weights)}.")
    weights = _for_normalized_images(weights, source)
    none = dict.fromkeys(("optimizer", "lr_scheduler"))
    return {
        "pytorch-lightning_version": version,
        "epoch": 0,
        "global_step": 0,
        "loops": NO_PROGRESS,
        "state_dict": {f"model.{name}": value.float().contiguous() for name, value in weights.items()},
        "hyper_parameters": {"hidden_dim": width, "lr_scheduler_interval": "epoch", **none},
        WEIGHTS_ALONE: True,
    }


def without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the network itself.

    >>> list(without_prefixes({"module._orig_mod.fc1.weight": torch.zeros(1)}))
    ['fc1.weight']
    """
    found = dict(weights)
    while prefix := next((each for each in PREFIXES if found and all(name.startswith(each) for name in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _width(weights: Mapping[str, Tensor]) -> int:
    """Return the width of the hidden layer, from the shape of either layer; 0 if there is neither."""
    shapes = [(weights[name].shape, axis) for name, axis in (("fc1.weight", 0), ("fc2.weight", 1)) if name in weights]
    return next((shape[axis] for shape, axis in shapes if len(shape) == 2), 0)


def _is_dense_float(value: Tensor) -> bool:
    return value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu"


def _described(weights: Mapping[str, Tensor]) -> str:
    """Return the first layers with their shapes and types."""
    layers = [f"{name} ({' x '.join(map(str, value.shape))} {_kind(value)})" for name, value in weights.items()]
    more = [f"and {len(layers) - SHOWN} more"] if len(layers) > SHOWN else []
    return ", ".join([*layers[:SHOWN], *more]) or "missing"


def _kind(value: Tensor) -> str:
    layout = [] if value.layout == torch.strided else [str(value.layout)]
    return " ".join([str(value.dtype), *layout]).replace("torch.", "")


def _for_normalized_images(weights: dict[str, Tensor], source: Any) -> dict[str, Tensor]:
    """Return weights that take normalised images; `mnist-amp export` writes some that take pixels.

    Those take pixels v from 0 to 255: their first layer is W v + b. A normalised image is x = 2 v / 255 - 1, so
    W v + b = (127.5 W) x + (b + the sum of 127.5 W over each row).

    Args:
        weights: by the names of the network.
        source: the input of an exported file, from its metadata; anything else for other files.
    """
    takes_pixels = isinstance(source, Mapping) and source.get("range") == PIXELS
    if not takes_pixels or not set(FIRST_LAYER) <= set(weights):
        return weights
    if weights["fc1.weight"].shape[:-1] != weights["fc1.bias"].shape:
        return weights  # they fit no network, which is reported later
    weight, bias = (weights[name].double() for name in FIRST_LAYER)
    first = {"fc1.weight": weight * 127.5, "fc1.bias": bias + (weight * 127.5).sum(dim=1)}
    return {name: first[name].float() if name in first else value for name, value in weights.items()}
