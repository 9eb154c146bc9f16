"""The settings of a checkpoint that may be used.

A checkpoint may come from a stranger, so no setting in it may run code, or choose where files are written. A plain word
is safe even if a file has that name, because the parser reads no value as a file, see `cli.parser.Parser`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError

# modules whose classes may be made, by the names that they have there; no loggers, which choose where to write
TRUSTED = (
    *(f"lightning.pytorch.{kind}" for kind in ("callbacks", "plugins", "profilers", "strategies")),
    *("torch.optim", "torch.optim.lr_scheduler", "torch.amp"),
)
RUNS_ITS_ARGUMENTS = "lightning.pytorch.callbacks.LambdaCallback"
FOLDERS = ("dirpath", "save_dir")
GROUPS = ("trainer", "model", "data", "scaler", "checkpoint")
DATA_DIR = "data.data_dir"  # only MNIST's own files are read and written there


def trusted_settings(
    path: Path, config: Mapping[str, Any], is_given: Callable[[str], bool], within: str = ""
) -> dict[str, Any]:
    """Return the settings of a checkpoint, without the unsafe ones that the user gives again.

    Nothing is imported to decide.

    Args:
        path: the checkpoint, named in the message.
        config: its settings, by group.
        is_given: whether the user gives an option, such as `trainer.callbacks`.
        within: the group's name and a dot.

    Raises:
        RequestError: a setting is unsafe, and the user does not give it.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        option = f"{within}{key}"
        if option in GROUPS and isinstance(value, Mapping):
            kept[key] = trusted_settings(path, value, is_given, f"{option}.")
        elif (unsafe := _unsafe_value({key: value})) is None or (option == DATA_DIR and isinstance(value, str)):
            kept[key] = value
        elif not is_given(option):
            raise RequestError(
                f"{path} has {unsafe} as {option}. This is not taken from a checkpoint, because it could run code or "
                f"write files anywhere. If you trust it, repeat it with --{option}; null leaves it out."
            )
    return kept


def _unsafe_value(value: Any) -> str | None:
    """Return the part of a setting that could run code or name a file; None if there is none."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if re.search(r"[.+]", str(key)) or (key in FOLDERS and part is not None):
                return f"{key} {part}"
            if key == "class_path" and not _is_trusted(str(part)):
                return str(part)
            if key != "class_path" and (unsafe := _unsafe_value(part)) is not None:
                return unsafe
    elif isinstance(value, list | tuple):
        return next((unsafe for part in value if (unsafe := _unsafe_value(part)) is not None), None)
    elif isinstance(value, str) and re.search(r"[^\W\d]\w*\.\w|\.\.|[/\\\0]", value):
        return value
    return None


def _is_trusted(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    known = module in TRUSTED and name.isidentifier() and class_path != RUNS_ITS_ARGUMENTS
    return known or class_path == "lightning.pytorch.cli.ReduceLROnPlateau"
