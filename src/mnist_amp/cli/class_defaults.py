"""Options that name a class: a class that is given begins with its own defaults.

jsonargparse keeps the settings of the former class that the new class also has. AdamW would so get Adam's
`weight_decay` of 0 instead of its own 0.01, because the default optimizer is Adam, with all of its settings.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mnist_amp.cli.arguments import find, load
from mnist_amp.networks.factory import NETWORK
from mnist_amp.runs.config_text import read_yaml, to_yaml
from mnist_amp.training.optimizers import ADAM

# with the class that each has if nothing names one
CLASS_OPTIONS = {
    "network": NETWORK["class_path"],
    "optimizer": ADAM["class_path"],
    "lr_scheduler": None,
    "trainer.logger": None,
    "trainer.profiler": None,
}


def with_own_defaults(args: Sequence[str]) -> list[str]:
    """Return arguments that clear an option before they give it another class.

    Config files come first, and each overrides the ones before it. In the other arguments an option's class and its
    settings may stand in any order, so the class is put before them:

    >>> with_own_defaults(["fit", "--optimizer.lr=0.1", "--optimizer=AdamW"])
    ['fit', '--optimizer=null', '--optimizer=AdamW', '--optimizer.lr=0.1']
    >>> with_own_defaults(["fit", "--optimizer=Adam"])
    ['fit', '--optimizer=Adam']

    Args:
        args: the command, its config files as `--config=FILE`, and its other arguments.
    """
    arranged = list(args)
    for option, default in CLASS_OPTIONS.items():
        arranged = _with_own_defaults(arranged, option, default)
    return arranged


def _with_own_defaults(args: list[str], option: str, default: str | None) -> list[str]:
    current, arranged = default, []
    for arg in args:
        if arg.startswith("--config="):
            named = _class_name(find(load(arg.removeprefix("--config=")), option))
            if _differs(named, current):
                arranged.append(f"--config={to_yaml(_nested(option))}")
            current = named or current
        arranged.append(arg)
    first = next(
        (place for place, arg in enumerate(arranged) if place and not arg.startswith("--config=")), len(arranged)
    )
    return [*arranged[:first], *_class_first(arranged[first:], option, current)]


def _class_first(args: list[str], option: str, current: str | None) -> list[str]:
    """Put the class of an option first, and clear the option before it, if its class differs from the current one."""
    naming, others, remaining = [], [], iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if name == f"--{option}":
            naming.append(value if equals else next(remaining, ""))
        else:
            others.append(arg)
    if not naming or not _differs(_class_name(_read(naming[-1])), current):
        return args
    return [f"--{option}=null", *(f"--{option}={value}" for value in naming), *others]


def _differs(named: str | None, current: str | None) -> bool:
    """Whether a class, by its name or its path, is another one; a name that is not given is not."""
    return None not in (named, current) and str(named).rpartition(".")[2] != str(current).rpartition(".")[2]


def _class_name(value: Any) -> str | None:
    value = value.get("class_path") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and re.fullmatch(r"[\w.]+", value) else None


def _read(text: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError:
        return None  # the parser reports it


def _nested(option: str) -> dict[str, Any]:
    """Return the setting None of an option, in its group."""
    group, _, name = option.rpartition(".")
    return {group: {name: None}} if group else {name: None}
