"""The axes of a comparison: options of `fit`, each with the values at which time and memory are measured."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mnist_amp.cli.arguments import GROUPS, find
from mnist_amp.errors import RequestError
from mnist_amp.measuring.compare_records import Setting, is_number

Axes = Mapping[str, list[Any]]
Parse = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # from options of fit, by name, to the settings of the fit
# options that can't be axes, with what to use instead
INSTEAD = {
    "trainer.precision": "the precisions are those of --precisions",
    "trainer.plugins": "the precisions are those of --precisions, which has fp16-cpu and plugins as well",
    "matmul_precision": "TF32 is the precision tf32 of --precisions",
    "seed_everything": "--seeds is the number of seeds, and --seed_everything the first of them",
    "trainer.accelerator": "compare measures one device, which --trainer.accelerator chooses",
}
EXAMPLE = "{data.batch_size: [64, 512]}"


def check_names(axes: Axes, own_options: list[str]) -> None:
    """Refuse axes that a comparison can't have, by their names.

    Args:
        axes: as they are requested.
        own_options: of `compare` itself, which a fit does not have.

    Raises:
        RequestError: the message says what to use instead.
    """
    for axis in axes:
        instead = next((text for name, text in INSTEAD.items() if f"{axis}.".startswith(f"{name}.")), None)
        if instead is not None:
            raise RequestError(f"axes has {axis}, but {instead}.")
        is_other = axis in (*own_options, *GROUPS, "config", "print_config") or axis.split(".")[-1] == "help"
        if is_other or not re.fullmatch(r"\w+(\.\w+)*", axis):
            raise RequestError(f"axes has {axis}, which is no setting of fit. Give settings as in '{EXAMPLE}'.")


def complete(axes: Axes, config: Mapping[str, Any], parse: Parse) -> tuple[dict[str, list[Any]], Setting]:
    """Return the axes with the values as fits take them and with those of the run, and the setting of the run.

    Args:
        axes: as they are requested.
        config: settings of the run.
        parse: returns the settings of a fit with some options, given by name.

    Raises:
        RequestError: a fit does not take an option, or one of its values.
    """
    completed: dict[str, list[Any]] = {}
    own: dict[str, Any] = {}
    for axis, values in axes.items():
        parsed = [(value, find(_parsed({axis: value}, parse), axis)) for value in values]
        known, own[axis] = _with_own(parsed, find(config, axis))
        completed[axis] = sorted(known) if all(map(is_number, known)) else known
    return completed, Setting.of(own)


def settings(axes: Axes) -> Iterator[Setting]:
    """Yield each combination of the values; those of the last axis change fastest.

    >>> [str(setting) for setting in settings({"network.width": [8, 16], "data.batch_size": [64]})]
    ['width 8 and batch_size 64', 'width 16 and batch_size 64']
    """
    for values in itertools.product(*axes.values()):
        yield Setting.of(dict(zip(axes, values, strict=True)))


def options(setting: Setting, own: Setting, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a fit with a setting, by name.

    The run's own value is left out if it is a class, whose arguments are in `config`, or null.

    Args:
        setting: the value of each axis.
        own: that of the run.
        config: settings of the run.
    """
    return {
        axis: value
        for axis, value in setting.values
        if not (value == own[axis] and (find(config, axis) is None or _is_class(find(config, axis))))
    }


def check(axes: Axes, own: Setting, config: Mapping[str, Any], parse: Parse) -> None:
    """Parse the settings of the fit with each combination of the values.

    Raises:
        RequestError: a fit does not take one of them.
    """
    for setting in settings(axes):
        _parsed(options(setting, own, config), parse)


def _parsed(given: Mapping[str, Any], parse: Parse) -> Mapping[str, Any]:
    try:
        return parse(given)
    except RequestError as error:
        raise RequestError(f"axes: {error}") from error


def _with_own(parsed: list[tuple[Any, Any]], own: Any) -> tuple[list[Any], Any]:
    """Return the distinct values of an axis with that of the run, and the value of the run.

    A class is kept as it is written, such as `CNN`; other values as the parser returns them.

    Args:
        parsed: each value as it is written, and as the parser returns it.
        own: value of the run.
    """
    known: dict[str, Any] = {}
    for written, found in parsed:
        kept = written if found is None or _is_class(found) else found
        known.setdefault(json.dumps(written if found is None else found), kept)
    name = own["class_path"].rpartition(".")[2] if _is_class(own) else own
    own_value = known.setdefault(json.dumps(own), own if name in known.values() else name)
    return list(known.values()), own_value


def _is_class(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value
