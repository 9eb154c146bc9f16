"""The types of the parts that must be right in a loaded checkpoint, and the check against them.

A part has an entry only if nothing else catches damage in it: without the entry, such damage crashes torch, ends in a
traceback, or changes a result without a message. Lightning and `Preflight` find all other damage when they load a
checkpoint, and the command reports it in one line.
"""

from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor


def optional(shape: Any) -> Callable[[Any], bool]:
    """Return a predicate for a value that has a shape or is None."""
    return lambda value: value is None or schema_error(value, shape) is None


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_image_shape(value: Any) -> bool:
    """Whether a value is the channels, height and width of images."""
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(is_count, value))


def is_ordinary_tensor(value: Any) -> bool:
    """Whether a value is a dense, contiguous tensor on the CPU. torch crashes on some other tensors."""
    ordinary = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return ordinary and not value.is_quantized and value.is_contiguous()


def is_optimizer_value(value: Any) -> bool:
    """Whether a value, or each value in a list such as those of LBFGS, is an ordinary tensor or no tensor."""
    if isinstance(value, list | tuple):
        return all(map(is_optimizer_value, value))
    return is_ordinary_tensor(value) or not isinstance(value, Tensor)


def is_plain_setting(value: Any) -> bool:
    """Whether a value can be written as YAML."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    plain = value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
    return plain and all(map(is_plain_setting, parts))


def is_version(value: Any) -> bool:
    try:
        return bool(Version(value))
    except (InvalidVersion, TypeError):
        return False


def is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def is_epoch_means(value: Any) -> bool:
    """Whether a value is a tensor of the rows of `EpochMeans`, by process: (processes, steps, 3)."""
    return is_ordinary_tensor(value) and value.ndim == 3 and value.shape[-1] == 3


def is_non_empty_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


CLASS = {"class_path": str, "init_args?": {str: is_plain_setting}}
NUMBERS = {str: int | float}
TENSORS = {str: is_ordinary_tensor}
# A key that ends in ? may be missing. A class as a key stands for all keys, which must be of this class.
CHECKPOINT: dict[str, Any] = {
    "pytorch-lightning_version": is_version,
    "global_step": is_count,
    "state_dict": TENSORS,
    "loops": {
        "fit_loop": {
            "epoch_progress": {"current": {"ready": is_count}},
            "epoch_loop.batch_progress": {"is_last_batch": bool},
        }
    },
    "hyper_parameters": {
        "network": optional(CLASS),
        "num_classes": is_count,
        "image_shape": optional(is_image_shape),
        "optimizer": optional(CLASS),
        "lr_scheduler": optional(CLASS),
        "lr_scheduler_interval": str,
    },
    "optimizer_states?": [{"state": {int: {str: is_optimizer_value}}}],
    "lr_schedulers?": [{str: object, "_last_lr": list}],
    "MixedPrecision?": NUMBERS,
    "callbacks?": {
        "RunCheckpoint?": {
            "history": [{**NUMBERS, "epoch": is_count, "step": is_count}],
            "best_model_score": optional(is_ordinary_tensor),
            "validated?": TENSORS,
        }
    },
    "ClassificationDataModule?": {"epoch": is_count, "images_ahead": int},
    "current_model_state?": TENSORS,
    "averaging_state?": TENSORS,
    "train_means?": is_epoch_means,
    "random_states?": TENSORS,
    "mnist_amp_config?": str,
    "mnist_amp_folder?": str,
    "mnist_amp_precision?": str,
    "mnist_amp_slurm_job?": str | None,
}
# of the data of a run: what decides which of the images are held out
SPLIT = {
    "val_size": is_count,
    "seed": is_count,
    "test_seed?": optional(is_count),
    "train_size?": is_count,
    "dataset?": str,
    "folder?": optional(is_path),
    "extra_folder?": optional(is_path),
}
# needed by one command only
NEEDED: dict[str, dict[str, Any]] = {
    "fit": {"optimizer_states": is_non_empty_list, "lr_schedulers": list},
    "validate": {"datamodule_hyper_parameters": SPLIT},
}


def schema_error(value: Any, shape: Any, name: str = "") -> str | None:
    """Return the first part of a nested value that is not as declared, such as `loops.fit_loop is missing`; else None.

    Args:
        value: nested dicts and lists.
        shape: a class, a union of classes, a predicate, a list with the shape of its items, or a dict with the shapes
            of its keys.
        name: of the value, for the message.
    """
    if isinstance(shape, dict) and isinstance(value, dict):
        return _first(_schema_error_of_key(value, key, part, name) for key, part in shape.items())
    if isinstance(shape, list) and isinstance(value, list):
        return _first(schema_error(item, shape[0], name) for item in value)
    by_class = isinstance(shape, type | UnionType)
    fits = isinstance(value, shape) if by_class else callable(shape) and shape(value)
    return None if fits else f"{name} is invalid"


def _schema_error_of_key(value: dict[Any, Any], key: Any, shape: Any, name: str) -> str | None:
    within = f"{name}." if name else ""
    if isinstance(key, type):
        wrong = [found for found in value if not isinstance(found, key)]
        parts = (schema_error(part, shape, f"{within}{found}") for found, part in value.items())
        return f"{within}{wrong[0]} is invalid" if wrong else _first(parts)
    plain = key.removesuffix("?")
    if plain in value:
        return schema_error(value[plain], shape, f"{within}{plain}")
    return None if plain != key else f"{within}{plain} is missing"


def _first(errors: Iterable[str | None]) -> str | None:
    return next(filter(None, errors), None)


def shape_of(value: Any) -> Any:
    """Return the shape of a value, in which any key may be missing."""
    if isinstance(value, dict):
        return {f"{key}?": shape_of(part) for key, part in value.items()}
    if type(value) is int:
        return is_count
    return object if value is None or isinstance(value, list) else type(value)
