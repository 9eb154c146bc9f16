"""The settings of a checkpoint that may be used.

A checkpoint may come from a stranger, so no setting in it may run code, or choose where files are written. A plain word
is safe even if a file has that name, because the parser reads no value as a file, see `cli.parser.Parser`.
"""

import ast
import importlib.util
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from torch import nn
from torch.utils.data import Dataset

from mnist_amp.errors import RequestError

# modules whose classes may be made, by the names that they have there
TRUSTED = (
    *(f"lightning.pytorch.{kind}" for kind in ("callbacks", "plugins", "profilers", "strategies")),
    *("torch.optim", "torch.optim.lr_scheduler", "torch.amp"),
)
# its layers are names that are looked up in the network, although dots are in them
FLOAT32_LAYERS = "mnist_amp.training.float32_layers.Float32Layers"
LAYER = re.compile(r"\w+(\.\w+)*")
RUNS_ITS_ARGUMENTS = "lightning.pytorch.callbacks.LambdaCallback"
FOLDERS = ("dirpath", "save_dir")
# these write only files, into a new folder `save_dir/name/version_N/sub_dir`
FILE_LOGGERS = {f"lightning.pytorch.loggers.{name}Logger" for name in ("CSV", "TensorBoard")}
LOG_FOLDERS = ("save_dir", "name", "sub_dir")
# these send the metrics to the place that the user's environment names, with no more than these settings of their own
TRACKERS: dict[str, tuple[type[Logger], set[str]]] = {
    "lightning.pytorch.loggers.MLFlowLogger": (MLFlowLogger, {"experiment_name", "run_name", "prefix", "tags"}),
    "lightning.pytorch.loggers.WandbLogger": (
        WandbLogger,
        {"project", "name", "save_dir", "prefix", "tags", "notes", "group", "offline"},
    ),
}
LOG_RUNS = ("version", "run_id", "id")  # that exist; a resumed run gets one of its own
GROUPS = ("trainer", "model", "data", "scaler", "checkpoint")
# only images are read there, and the published files of data sets written
READ_ONLY = ("data.data_dir", "data.folder", "data.extra_folder")
BASES = {"network": nn.Module, "data.dataset": Dataset}  # options that may name a subclass of these, of any package
MODELS = "torchvision.models"
OF_PROGRAM = "__main__."  # a class that the running notebook or program has defined itself: it needs no import


def trusted_settings(
    path: Path, config: Mapping[str, Any], is_given: Callable[[str], bool], within: str = ""
) -> dict[str, Any]:
    """Return the settings of a checkpoint, without the unsafe ones that the user gives again.

    To decide, only the module of a network or a data set is imported, see `names_subclass`. A logger gets a new
    `version`, so that the logs of another run are not overwritten.

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
        elif (unsafe := _unsafe_setting(path, option, key, value)) is None:
            kept[key] = _with_new_run(value) if option == "trainer.logger" else value
        elif not is_given(option):
            if option in BASES and (missing := _missing_module(unsafe)) is not None:
                raise RequestError(
                    f"{path} has {unsafe} as {option}, but there is no module {missing}, neither installed nor in the "
                    "current folder. Run the command in the folder that has it."
                )
            if unsafe.startswith(OF_PROGRAM):
                raise RequestError(
                    f"{path} has {unsafe} as {option}, which was defined in the notebook or program that trained it, "
                    "and is not defined here. Run its cell first; or write it to a file such as my_module.py, and give "
                    f"--{option} my_module.{unsafe.removeprefix(OF_PROGRAM)}."
                )
            raise RequestError(
                f"{path} has {unsafe} as {option}. This is not taken from a checkpoint, because it could "
                f"{'send metrics' if option == 'trainer.logger' else 'run code or write files'} anywhere. "
                f"If you trust it, {_how_to_repeat(option, value, unsafe)}"
            )
    return kept


def _missing_module(class_path: str) -> str | None:
    """Return the first part of a path if there is no such module; None if there is one."""
    root = class_path.partition(".")[0]
    try:
        return root if root.isidentifier() and "." in class_path and importlib.util.find_spec(root) is None else None
    except (ImportError, ValueError):
        return None


def _how_to_repeat(option: str, value: Any, unsafe: str) -> str:
    if option == "trainer.logger" and isinstance(value, Mapping) and "class_path" in value:
        return f"repeat it: {' '.join(logger_options(value))}. --trainer.logger null leaves it out."
    if option not in BASES:
        return f"repeat it with --{option}; null leaves it out."
    name = value.get("class_path") if isinstance(value, Mapping) else value
    return f"repeat it: --{option} {name}{'' if unsafe == name else ', with all of its parameters'}."


def logger_options(logger: Mapping[str, Any]) -> list[str]:
    """Return the options that give a logger again: its class, and the settings that are not the defaults of the class.

    Args:
        logger: its class_path and init_args.
    """
    name = str(logger["class_path"]).removeprefix("lightning.pytorch.loggers.")
    parameters = inspect.signature(getattr(loggers, name)).parameters if hasattr(loggers, name) else {}
    given = {key: value for key, value in dict(logger.get("init_args") or {}).items() if key not in LOG_RUNS}
    defaults = {key: parameters[key].default for key in parameters}
    own = [key for key, value in given.items() if value is not None and value != defaults.get(key, ...)]
    return [f"--trainer.logger {name}", *(f"--trainer.logger.{key} {shlex.quote(_as_text(given[key]))}" for key in own)]


def is_inherited(logger: Mapping[str, Any]) -> bool:
    """Whether a logger, a class_path and init_args, is taken over from a checkpoint."""
    return _unsafe_logger(logger) is None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _unsafe_setting(path: Path, option: str, key: str, value: Any) -> str | None:
    """Return the part of a setting that could run code or name a file; None if there is none."""
    if option == "trainer.logger":
        return next((unsafe for logger in _as_list(value) if (unsafe := _unsafe_logger(logger)) is not None), None)
    if option in READ_ONLY and isinstance(value, str):
        return None
    if option in BASES:
        return _unsafe_class(path, value, BASES[option])
    return _unsafe_value({key: value})


def _unsafe_class(path: Path, value: Any, base: type) -> str | None:
    """Return what is unsafe in a network or a data set: its class, or a part of its arguments."""
    settings = value if isinstance(value, Mapping) else {"class_path": value}
    name = str(settings.get("class_path"))
    if "." in name and not _is_model(name) and (_is_beside(path, name) or not names_subclass(name, base)):
        return name
    return unsafe_arguments(path, {key: part for key, part in settings.items() if key != "class_path"})


def unsafe_arguments(path: Path, value: Any) -> str | None:
    """Return what is unsafe in the arguments of a network; they may name classes of networks, such as torch.nn.ReLU."""
    if isinstance(value, Mapping):
        parts = [part for key, part in value.items() if key != "class_path"]
        names = [str(value["class_path"])] if "class_path" in value else []
        if names and "." not in names[0]:
            return names[0]
        keys = _unsafe_value({key: None for key in value if key != "class_path"})
        return keys or next(filter(None, (unsafe_arguments(path, part) for part in (*names, *parts))), None)
    if isinstance(value, list | tuple):
        return next(filter(None, (unsafe_arguments(path, part) for part in value)), None)
    unsafe = _unsafe_value(value)
    is_layer = unsafe is not None and not _is_beside(path, unsafe) and names_subclass(unsafe, nn.Module)
    return None if is_layer else unsafe


def _is_beside(path: Path, class_path: str) -> bool:
    """Whether a module lies in the folder of a checkpoint or of its run, so that both may come from a stranger."""
    if class_path.startswith(OF_PROGRAM):
        return False
    root = class_path.partition(".")[0]
    try:
        spec = importlib.util.find_spec(root) if root.isidentifier() else None
    except (ImportError, ValueError):
        return True
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    folders = {path.parent.resolve(), path.parent.parent.resolve() if path.parent.name == "checkpoints" else None}
    found = [Path(place).resolve() for place in places if place]
    return any(parent in folders for place in found for parent in place.parents)


def names_subclass(class_path: str, base: type) -> bool:
    """Whether a path names a subclass of a base class, in an installed package or the current folder.

    Its module is imported, but never one of the standard library or one that runs a program.
    """
    module, _, name = class_path.rpartition(".")
    if f"{module}." == OF_PROGRAM:
        return _is_subclass(getattr(sys.modules[module], name, None), base)
    parts = [*module.split("."), name]
    if not all(map(str.isidentifier, parts)) or parts[0] in (*sys.stdlib_module_names, "test") or "__main__" in parts:
        return False
    if not _defines(module, name):
        return False
    try:
        return _is_subclass(getattr(importlib.import_module(module), name, None), base)
    except Exception:  # of any kind: the module's own code runs
        return False


def _is_subclass(found: Any, base: type) -> bool:
    return inspect.isclass(found) and issubclass(found, base)


def _defines(module: str, name: str) -> bool:
    """Whether the source of a module defines or imports a name, by its text. A program that is no module is not run."""
    root, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(root)  # which imports nothing
        places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or []]
        stems = [place.joinpath(*inner) for place in places]
        files = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
        files += [Path(spec.origin)] if spec is not None and spec.origin and not inner else []
        trees = [ast.parse(file.read_bytes()) for file in files if file.is_file()]
    except (ImportError, ValueError, OSError, SyntaxError):
        return False
    nodes = [node for tree in trees for node in ast.walk(tree)]
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    imported = [alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    return name in classes or any(alias.name == "*" or (alias.asname or alias.name) == name for alias in imported)


def _is_model(class_path: str) -> bool:
    """Whether a path names a function of torchvision that makes a network."""
    module, _, name = class_path.rpartition(".")
    if module != MODELS:
        return False
    models = importlib.import_module(MODELS)
    return name in models.list_models(module=models)


def _unsafe_logger(logger: Any) -> str | None:
    """Return what is unsafe in a logger: its class, a folder that is not below the current one, or another place."""
    if not isinstance(logger, Mapping):
        return None if logger is None or isinstance(logger, bool) else str(logger)
    name, settings = logger.get("class_path"), dict(logger.get("init_args") or {})
    if name not in FILE_LOGGERS and name not in TRACKERS:
        return str(logger.get("class_path", logger))
    for key, value in logger.items():
        if key not in ("class_path", "init_args") and value:  # such as dict_kwargs, which replace init_args
            return f"{key} {value}"
    if name in TRACKERS and (unsafe := _unsafe_tracker(*TRACKERS[name], settings)) is not None:
        return unsafe
    for key in LOG_FOLDERS:
        folder = settings.pop(key, None)
        if folder is not None and not _is_below(str(folder)):
            return f"{key} {folder}"
    return _unsafe_value(settings)


def _unsafe_tracker(kind: type[Logger], known: set[str], settings: dict[str, Any]) -> str | None:
    """Return a setting that is neither known to be safe nor its default; take out the defaults."""
    parameters = inspect.signature(kind).parameters
    for key, value in list(settings.items()):
        if value is None or (key in parameters and value == parameters[key].default):
            del settings[key]
        elif key not in known and key not in LOG_RUNS:
            return f"{key} {value}"
    return None


def _is_below(folder: str) -> bool:
    """Whether a path leads below the current folder. Loggers replace `~` and variables, and take addresses."""
    return re.fullmatch(r"[\w .-][\w ./-]*|", folder) is not None and ".." not in Path(folder).parts


def _with_new_run(value: Any) -> Any:
    """Return a logger or several, each without the run that it has logged to, so that it begins the next one."""
    if isinstance(value, list | tuple):
        return [_with_new_run(logger) for logger in value]
    if not isinstance(value, Mapping) or not value.get("init_args"):
        return value
    return {**value, "init_args": {key: None if key in LOG_RUNS else part for key, part in value["init_args"].items()}}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _unsafe_value(value: Any) -> str | None:
    """Return the part of a setting that could run code or name a file; None if there is none."""
    if isinstance(value, Mapping):
        for key, part in _without_layer_names(value).items():
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
    return known or class_path in (FLOAT32_LAYERS, "lightning.pytorch.cli.ReduceLROnPlateau")


def _without_layer_names(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a Float32Layers without the names of its layers; other settings unchanged."""
    arguments = settings.get("init_args")
    if settings.get("class_path") != FLOAT32_LAYERS or not isinstance(arguments, Mapping):
        return settings
    layers = arguments.get("layers")
    if not isinstance(layers, list) or not all(isinstance(name, str) and LAYER.fullmatch(name) for name in layers):
        return settings
    return {**settings, "init_args": {key: value for key, value in arguments.items() if key != "layers"}}
