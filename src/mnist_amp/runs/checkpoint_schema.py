"""What a checkpoint must have, declared as a nest of types, and how that is checked."""

from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_plain(value: Any) -> bool:
    """Whether it is a tensor as all code expects it: on the CPU, dense, in one piece of memory."""
    ordinary = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return ordinary and not value.is_quantized and value.is_contiguous()


def is_state(value: Any) -> bool:
    return is_plain(value) or not isinstance(value, Tensor)


def is_setting(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    plain = value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
    return plain and all(map(is_setting, parts))


def is_version(value: Any) -> bool:
    try:
        return bool(Version(value))
    except (InvalidVersion, TypeError):
        return False


def is_rows(value: Any) -> bool:
    """Whether it is a tensor of the processes' rows of `EpochMeans`."""
    return is_plain(value) and value.ndim == 3 and value.shape[-1] == 3


def is_some(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


CLASS = {"class_path": str, "init_args?": {str: is_setting}}
FIGURES = {str: (int, float)}
PROGRESS = {"current": {"ready": is_count}}
# a key that ends in ? may be missing; one that is a class stands for all keys, which must be of it
CHECKPOINT: dict[str, Any] = {
    "pytorch-lightning_version": is_version,
    "epoch": is_count,
    "global_step": is_count,
    "state_dict": {str: is_plain},
    "loops": {"fit_loop": {"epoch_progress": PROGRESS, "epoch_loop.batch_progress": {"is_last_batch": bool}}},
    "hyper_parameters": {
        **{str: is_setting, "hidden_dim": is_count, "lr_scheduler_interval": str},
        **{"optimizer": (CLASS, None), "lr_scheduler": (CLASS, None)},
    },
    "datamodule_hyper_parameters?": {str: object},
    "optimizer_states?": [{"state": {int: {str: is_state}}, "param_groups": [{str: object, "params": is_some}]}],
    "lr_schedulers?": [{str: object, "_last_lr": list}],
    "MixedPrecision?": FIGURES,
    "callbacks?": {
        "RunCheckpoint?": {"history": [{**FIGURES, "step": is_count}], "best_model_score": (is_plain, None)}
    },
    "train_means?": is_rows,
    "random_states?": {str: is_plain},
    "pending_row?": {**FIGURES, "epoch": is_count, "step": is_count},
    **{"mnist_amp_config?": str, "mnist_amp_folder?": str, "mnist_amp_precision?": str},
}
# what a command needs beside that
NEEDED: dict[str, dict[str, Any]] = {
    "fit": {"optimizer_states": is_some, "lr_schedulers": list},
    "validate": {"datamodule_hyper_parameters": {"val_size": is_count, "seed": is_count}},
}


def schema_error(value: Any, shape: Any, name: str = "") -> str | None:
    """Say what in a nest is not as declared, such as `loops.fit_loop is missing`; None if all is.

    Args:
        value: what is there.
        shape: a class, a function that says whether, a tuple of alternatives, None, a list with the shape of its items,
            or a dict with those of its keys.
        name: of the value.
    """
    if isinstance(shape, dict) and isinstance(value, dict):
        return next(filter(None, (_schema_error_of_key(value, key, part, name) for key, part in shape.items())), None)
    if isinstance(shape, list) and isinstance(value, list):
        return next(filter(None, (schema_error(item, shape[0], name) for item in value)), None)
    if isinstance(shape, tuple):
        fits = any(schema_error(value, alternative) is None for alternative in shape)
    elif isinstance(shape, type):
        fits = isinstance(value, shape)
    else:
        fits = value is None if shape is None else callable(shape) and shape(value)
    return None if fits else f"{name} is not what it should be"


def _schema_error_of_key(value: dict[Any, Any], key: Any, shape: Any, name: str) -> str | None:
    within = f"{name}." if name else ""
    if isinstance(key, type):
        wrong = [found for found in value if not isinstance(found, key)]
        parts = (schema_error(part, shape, f"{within}{found}") for found, part in value.items())
        return f"{within}{wrong[0]} is not what it should be" if wrong else next(filter(None, parts), None)
    plain = key.removesuffix("?")
    if plain in value:
        return schema_error(value[plain], shape, f"{within}{plain}")
    return None if plain != key else f"{within}{plain} is missing"


def shape_of(value: Any) -> Any:
    """Return the shape that is that of `value`, where keys may be missing."""
    if isinstance(value, dict):
        return {f"{key}?": shape_of(part) for key, part in value.items()}
    if type(value) is int:
        return is_count
    return object if value is None or isinstance(value, list) else type(value)
