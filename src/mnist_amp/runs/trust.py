"""Which settings of a checkpoint, maybe a stranger's, are taken over: none that run code or write where they like."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError

# modules whose classes may be made, under the names that they have there; no loggers, which write where they are told
TRUSTED = (
    *(f"lightning.pytorch.{kind}" for kind in ("callbacks", "plugins", "profilers", "strategies")),
    *("torch.optim", "torch.optim.lr_scheduler", "torch.amp"),
)
CALLS = "lightning.pytorch.callbacks.LambdaCallback"  # whatever it is given
PLACES = ("dirpath", "save_dir")
GROUPS = ("trainer", "model", "data", "scaler", "checkpoint")
READ = "data.data_dir"  # where nothing but MNIST's own files is read or written


def trusted(path: Path, config: Mapping[str, Any], is_given: Callable[[str], bool], within: str = "") -> dict[str, Any]:
    """Return the settings of the checkpoint at `path`, but for those that are given anew and could do harm.

    Nothing is imported to tell.

    Args:
        path: named in the message.
        config: the settings, by group.
        is_given: whether an option, such as `trainer.callbacks`, is given anew as a whole.
        within: the group's name and a dot.

    Raises:
        RequestError: settings that could do harm are not given anew.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        option = f"{within}{key}"
        if option in GROUPS and isinstance(value, Mapping):
            kept[key] = trusted(path, value, is_given, f"{option}.")
        elif (harm := _unsafe_value({key: value})) is None or (option == READ and isinstance(value, str)):
            kept[key] = value
        elif not is_given(option):
            raise RequestError(
                f"{path} has {harm} as {option}, which is not taken over from a checkpoint, as it could run code or "
                f"write anywhere. If you trust it, give it anew with --{option}; null leaves it out."
            )
    return kept


def _unsafe_value(value: Any) -> str | None:
    """Return what in a setting could run code or name a file; None if nothing."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if re.search(r"[.+]", str(key)) or (key in PLACES and part is not None):
                return f"{key} {part}"
            if key == "class_path" and not _is_trusted(str(part)):
                return str(part)
            if key != "class_path" and (harm := _unsafe_value(part)) is not None:
                return harm
    elif isinstance(value, list | tuple):
        return next((harm for part in value if (harm := _unsafe_value(part)) is not None), None)
    elif isinstance(value, str) and (re.search(r"[^\W\d]\w*\.\w|\.\.|[/\\\0]", value) or _is_file(value)):
        return value
    return None


def _is_trusted(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    known = module in TRUSTED and name.isidentifier() and class_path != CALLS
    return known or class_path == "lightning.pytorch.cli.ReduceLROnPlateau"


def _is_file(word: str) -> bool:
    """Whether the parser could take a word for the name of a config file."""
    return len(word) > 200 or Path(word).is_file()
