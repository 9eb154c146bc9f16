"""The settings of a checkpoint that may be used.

A checkpoint may come from a stranger, so no setting in it may run code, or choose where files are written. A plain word
is safe even if a file has that name, because the parser reads no value as a file, see `cli.parser.Parser`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError

# modules whose classes may be made, by the names that they have there
TRUSTED = (
    *(f"lightning.pytorch.{kind}" for kind in ("callbacks", "plugins", "profilers", "strategies")),
    *("torch.optim", "torch.optim.lr_scheduler", "torch.amp"),
)
RUNS_ITS_ARGUMENTS = "lightning.pytorch.callbacks.LambdaCallback"
FOLDERS = ("dirpath", "save_dir")
# they write only files, into a new folder `save_dir/name/version_N/sub_dir`; other loggers send the metrics elsewhere
LOGGERS = ("lightning.pytorch.loggers.CSVLogger", "lightning.pytorch.loggers.TensorBoardLogger")
LOG_FOLDERS = ("save_dir", "name", "sub_dir")
GROUPS = ("trainer", "model", "data", "scaler", "checkpoint")
DATA_DIR = "data.data_dir"  # only MNIST's own files are read and written there


def trusted_settings(
    path: Path, config: Mapping[str, Any], is_given: Callable[[str], bool], within: str = ""
) -> dict[str, Any]:
    """Return the settings of a checkpoint, without the unsafe ones that the user gives again.

    Nothing is imported to decide. A logger gets a new `version`, so that the logs of another run are not overwritten.

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
        elif (unsafe := _unsafe_setting(within, key, value)) is None:
            kept[key] = _with_new_version(value) if option == "trainer.logger" else value
        elif not is_given(option):
            raise RequestError(
                f"{path} has {unsafe} as {option}. This is not taken from a checkpoint, because it could run code or "
                f"write files anywhere. If you trust it, repeat it with --{option}; null leaves it out."
            )
    return kept


def _unsafe_setting(within: str, key: str, value: Any) -> str | None:
    """Return the part of a setting that could run code or name a file; None if there is none."""
    if f"{within}{key}" == "trainer.logger":
        return next((unsafe for logger in _as_list(value) if (unsafe := _unsafe_logger(logger)) is not None), None)
    if f"{within}{key}" == DATA_DIR and isinstance(value, str):
        return None
    return _unsafe_value({key: value})


def _unsafe_logger(logger: Any) -> str | None:
    """Return what is unsafe in a logger: its class, or a folder that is not below the current one."""
    if not isinstance(logger, Mapping):
        return None if logger is None or isinstance(logger, bool) else str(logger)
    if logger.get("class_path") not in LOGGERS:
        return str(logger.get("class_path", logger))
    settings = dict(logger.get("init_args") or {})
    for name in LOG_FOLDERS:
        folder = settings.pop(name, None)
        if folder is not None and not _is_below(str(folder)):
            return f"{name} {folder}"
    others = {key: value for key, value in logger.items() if key not in ("class_path", "init_args")}
    return _unsafe_value(settings) or _unsafe_value(others)


def _is_below(folder: str) -> bool:
    """Whether a path leads below the current folder. Loggers replace `~` and variables, and take addresses."""
    return re.fullmatch(r"[\w .-][\w ./-]*|", folder) is not None and ".." not in Path(folder).parts


def _with_new_version(value: Any) -> Any:
    """Return a logger or several, each with a `version` of None, which is the next free one."""
    if isinstance(value, list | tuple):
        return [_with_new_version(logger) for logger in value]
    if not isinstance(value, Mapping) or "version" not in (value.get("init_args") or {}):
        return value
    return {**value, "init_args": {**value["init_args"], "version": None}}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


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
