"""Files that hold the weights of a network alone: `model.pth`, the guide's own file, and those of `mnist-amp export`.

Such a file has no progress, no optimizer and no settings. The width of a SimpleNN is read from the shapes. The names
may have the prefixes of LightningModules, of `torch.compile` and of DataParallel.
"""

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnist_amp import torch_internals
from mnist_amp.errors import RequestError
from mnist_amp.runs.checkpoint_schema import CLASS, is_image_shape, schema_error
from mnist_amp.torch_internals import metadata_of

if TYPE_CHECKING:
    from mnist_amp.data import ClassificationDataModule

METADATA = "mnist_amp"  # the entry that holds the metadata in .pth and .pt2; other formats have an entry for each key
CONFIG = "mnist_amp_config"  # the key of a run's configuration
DATA = "datamodule_hyper_parameters"
WEIGHTS_ALONE = "mnist_amp_weights_alone"  # the key of a content that `as_checkpoint` made
PREFIXES = ("model.", "module.", "_orig_mod.")
FIRST_LAYER = ("fc1.weight", "fc1.bias")
SIMPLE_NN = (*FIRST_LAYER, "fc2.weight", "fc2.bias")
PIXELS = [0, 255]  # the range of the input for which `mnist-amp export` writes weights
OUR_METADATA = ("network", "classes", "image_shape", "normalization", "input")
DESCRIPTION = {
    "network": CLASS,
    "classes": [str],
    "image_shape": is_image_shape,
    "normalization": {"mean": int | float | list, "std": int | float | list},
}
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


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a .safetensors file by name, and its metadata, whose values may be of any kind.

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
    return weights, {name: _read_json(text) for name, text in metadata.items() if name in OUR_METADATA}


def _read_json(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):  # another program's metadata may be any text
        return json.loads(text)
    return None


def describe(network: dict[str, Any], data: "ClassificationDataModule") -> dict[str, Any]:
    """Return what a file of weights needs to be used: the network, its classes, its images and their normalisation."""
    return {
        "network": network,
        "classes": list(data.classes),
        "image_shape": list(data.image_shape),
        "normalization": data.normalization._asdict(),
    }


def with_metadata(weights: Mapping[str, Tensor], metadata: dict[str, Any]) -> dict[str, Tensor]:
    """Return a state_dict that holds metadata, which `load_state_dict` ignores."""
    return torch_internals.with_metadata(weights, METADATA, metadata)


def is_plain_weights(content: Any) -> bool:
    """Whether the content of a file is a state_dict: weights by name."""
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    return named and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def metadata_within(content: Any) -> dict[str, Any]:
    """Return the metadata of a state_dict that this project wrote, whose values may be of any kind; else nothing."""
    metadata: Any = metadata_of(content)  # another program's may be of any type
    ours = metadata.get(METADATA) if isinstance(metadata, Mapping) else None
    return {name: value for name, value in ours.items() if name in OUR_METADATA} if isinstance(ours, Mapping) else {}


def as_checkpoint(path: Path, content: Mapping[str, Tensor], metadata: dict[str, Any], version: str) -> dict[str, Any]:
    """Return weights in the form of a checkpoint that has trained nothing; its network is None if it is unknown.

    Args:
        path: of the file, named in messages.
        content: the weights by name, of any floating dtype.
        metadata: of the file, see `describe`; it may be empty, or damaged.
        version: of Lightning.

    Raises:
        RequestError: they are not dense real numbers.
    """
    known = schema_error(metadata, DESCRIPTION) is None
    weights = dict(content) if known else without_prefixes(content)  # our own files have no prefixes
    if not _are_of_a_network(weights.values()):
        raise RequestError(f"{path} does not hold the weights of a network. Its layers are {_described(weights)}.")
    if known:
        network, num_classes, image_shape = metadata["network"], len(metadata["classes"]), metadata["image_shape"]
    else:
        network, num_classes, image_shape = _network_of_shapes(weights)
    weights = _for_normalized_images(weights, metadata.get("input"))
    none = dict.fromkeys(("optimizer", "lr_scheduler"))
    return {
        "pytorch-lightning_version": version,
        "epoch": 0,
        "global_step": 0,
        "loops": NO_PROGRESS,
        "state_dict": {f"model.{name}": _single(value) for name, value in weights.items()},
        "hyper_parameters": {
            "network": network,
            "num_classes": num_classes,
            "image_shape": image_shape,
            "lr_scheduler_interval": "epoch",
            **none,
        },
        **(_settings(metadata) if known else {}),
        WEIGHTS_ALONE: True,
    }


def _settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file tells of its data: the normalisation, as settings, and the names of the classes."""
    normalization = {name: metadata["normalization"][name] for name in ("mean", "std")}
    return {CONFIG: json.dumps({"data": normalization}), DATA: {"classes": list(metadata["classes"])}}


def without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the network itself.

    >>> list(without_prefixes({"module._orig_mod.fc1.weight": torch.zeros(1)}))
    ['fc1.weight']
    """
    found = dict(weights)
    while prefix := next((each for each in PREFIXES if found and all(name.startswith(each) for name in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _network_of_shapes(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any] | None, int, tuple[int, int, int] | None]:
    """Return class_path and init_args, classes and image shape of the network whose layers these are.

    The layers of SimpleNN tell them by their shapes. Others do not.
    """
    hidden, outputs = (weights.get(f"fc{layer}.weight", torch.empty(0)) for layer in (1, 2))
    if not set(weights) <= set(SIMPLE_NN) or 2 not in (hidden.ndim, outputs.ndim):
        return None, 0, None
    width = hidden.shape[0] if hidden.ndim == 2 else outputs.shape[1]
    classes = outputs.shape[0] if outputs.ndim == 2 else 10
    image_shape = (1, 28, 28) if hidden.ndim == 2 and hidden.shape[1] == 28 * 28 else None
    return {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": width}}, classes, image_shape


def _are_of_a_network(values: Collection[Tensor]) -> bool:
    """Whether all are dense, none is complex or empty, and some are floating: BatchNorm also has a count."""
    dense = all(value.layout == torch.strided and value.device.type == "cpu" for value in values)
    real = not any(value.is_quantized or value.is_complex() or value.numel() == 0 for value in values)
    return dense and real and any(value.is_floating_point() for value in values)


def _single(value: Tensor) -> Tensor:
    """Return a weight as float32; whole numbers, such as BatchNorm's count of batches unchanged."""
    return (value.float() if value.is_floating_point() else value).contiguous()


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
