"""The classes that options name, such as `--lr_scheduler CosineAnnealingLR`, and the names of their parameters."""

import contextlib
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from mnist_amp.cli.arguments import environment_arguments, written
from mnist_amp.runs.config_text import read_yaml

# the modules of the classes that these options take by name
MODULES = {
    "network": "mnist_amp.networks",
    "optimizer": "torch.optim",
    "lr_scheduler": "torch.optim.lr_scheduler",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.plugins": "lightning.pytorch.plugins",
    "trainer.profiler": "lightning.pytorch.profilers",
    "trainer.strategy": "lightning.pytorch.strategies",
}


def class_names(option: str) -> list[str]:
    """Return the classes that an option takes by name."""
    if option not in MODULES:
        return []
    return [name for name, found in vars(importlib.import_module(MODULES[option])).items() if inspect.isclass(found)]


def restore_capitals(args: Iterable[str], env: Mapping[str, str], inherited: Iterable[str] = ()) -> list[str]:
    """Return the arguments with the parameters of classes as they are spelled, where the environment sets them.

    The names of variables are in capitals: `MNIST_AMP_LR_SCHEDULER__T_MAX=3` sets `--lr_scheduler.T_max`, if the
    schedule has a parameter of that name.

    Args:
        args: all arguments, also those of the environment, in lower case.
        env: the environment.
        inherited: weaker arguments that may name the class.
    """
    args, variables = list(args), {argument for _, argument in environment_arguments(env)}
    if not variables.intersection(args):
        return args
    named = list(_named_classes([*inherited, *args]))
    return [_spelled(arg, named) if arg in variables else arg for arg in args]


def _spelled(arg: str, named: list[tuple[str, set[str]]]) -> str:
    name, _, value = arg.partition("=")
    key = name.removeprefix("--")
    for option, parameters in named:
        if key.startswith(f"{option}."):
            spelled = {parameter.lower(): parameter for parameter in parameters} | {each: each for each in parameters}
            rest = key.removeprefix(f"{option}.").split(".")
            key = ".".join([option, *(spelled.get(part, part) for part in rest)])
    return f"--{key}={value}"


def _named_classes(args: Iterable[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield each option that names classes, with the parameters of these."""
    for key, value in written(args):
        option = key.removesuffix("+").removesuffix(".class_path").replace(".init_args", "")
        if parameters := {name for word in _words(value) for name in _parameters(option, word)}:
            yield option, parameters


def _words(value: Any) -> Iterator[str]:
    """Yield the words in a value, which may name classes: a word, or nested settings that have some."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(yaml.YAMLError):
            value = read_yaml(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _words(part)


def _parameters(option: str, word: str) -> set[str]:
    """Return the parameters of a class that an option names, also those of its base classes."""
    module, _, name = word.rpartition(".")
    module = module or MODULES.get(option, "")
    if not module or not all(part.isidentifier() for part in [*module.split("."), name]):
        return set()
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:  # the parser reports it
        return set()
    makers = [vars(base).get("__init__") for base in inspect.getmro(found)] if inspect.isclass(found) else [found]
    return {each for maker in makers if inspect.isfunction(maker) for each in inspect.signature(maker).parameters}
