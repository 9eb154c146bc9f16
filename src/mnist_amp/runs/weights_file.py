"""Files that hold the weights of a network alone: `model.pth`, the guide's own file, and those of `mnist-amp export`.

Such a file has no progress, no optimizer and no settings. Its width is read from the shapes, and its names may have the
prefixes of LightningModules, of `torch.compile` and of DataParallel.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_amp.errors import RequestError
from mnist_amp.torch_internals import metadata_of

WEIGHTS_ALONE = "mnist_amp_weights_alone"  # the key of a content that `as_checkpoint` made
PREFIXES = ("model.", "module.", "_orig_mod.")
FIRST_LAYER = ("fc1.weight", "fc1.bias")
PIXELS = [0, 255]  # the range of the input for which `mnist-amp export` writes weights
NO_PROGRESS: dict[str, Any] = {
    "fit_loop": {
        "epoch_progress": {"current": {"ready": 0}},
        "epoch_loop.batch_progress": {"current": {"processed": 0}, "is_last_batch": False},
    },
    **{f"{command}_loop": {} for command in ("validate", "test", "predict")},
}


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the weights of a .safetensors file, by name.

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
    return _for_normalized_images(weights, json.loads(metadata.get("input", "{}")))


def is_plain_weights(content: Any) -> bool:
    """Whether the content of a file is a state_dict: weights by name."""
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    return named and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def as_checkpoint(path: Path, content: Mapping[str, Tensor], version: str) -> dict[str, Any]:
    """Return weights in the form of a checkpoint of LitSimpleNN that has trained nothing.

    Args:
        path: of the file, named in messages.
        content: the weights by name, of any floating dtype.
        version: of Lightning.

    Raises:
        RequestError: they are not those of a SimpleNN.
    """
    metadata = metadata_of(content).get("mnist_amp", {})  # written by `mnist-amp export`
    weights = _for_normalized_images(without_prefixes(content), metadata.get("input", {}))
    first = weights.get("fc1.weight")
    if first is None or first.ndim != 2 or not all(value.is_floating_point() for value in weights.values()):
        raise RequestError(f"{path} does not hold the weights of a SimpleNN: its layers are {', '.join(weights)}.")
    none = dict.fromkeys(("optimizer", "lr_scheduler"))
    return {
        "pytorch-lightning_version": version,
        "epoch": 0,
        "global_step": 0,
        "loops": NO_PROGRESS,
        "state_dict": {f"model.{name}": value.float().contiguous() for name, value in weights.items()},
        "hyper_parameters": {"hidden_dim": len(first), "lr_scheduler_interval": "epoch", **none},
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


def _for_normalized_images(weights: dict[str, Tensor], source: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return weights that take normalised images; `mnist-amp export` writes some that take pixels.

    Those take pixels v from 0 to 255: their first layer is W v + b. A normalised image is x = 2 v / 255 - 1, so
    W v + b = (127.5 W) x + (b + the sum of 127.5 W over each row).

    Args:
        weights: by the names of the network.
        source: the input of an exported file, from its metadata.
    """
    if source.get("range") != PIXELS or not set(FIRST_LAYER) <= set(weights):
        return weights
    weight, bias = (weights[name].double() for name in FIRST_LAYER)
    first = {"fc1.weight": weight * 127.5, "fc1.bias": bias + (weight * 127.5).sum(dim=1)}
    return {name: first[name].float() if name in first else value for name, value in weights.items()}
