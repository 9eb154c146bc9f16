"""Errors of jsonargparse, Lightning, torch and the system, in one line that says what is wrong and what to do."""

import importlib
import inspect
import operator
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from mnist_amp.cli.arguments import DEBUG, SUBCOMMANDS
from mnist_amp.cli.class_options import class_names
from mnist_amp.errors import RequestError, RunError, UsageError
from mnist_amp.named_classes import FILLED
from mnist_amp.wording import nearest

# what other programs call an option
ELSEWHERE = {"lr": "optimizer.lr", "learning_rate": "optimizer.lr"}
RENAMED = {"model.hidden_dim": "network.hidden_dim"}  # options of version 0.1
COMPARISONS = {
    ">=": (operator.ge, "at least"),
    ">": (operator.gt, "above"),
    "<=": (operator.le, "at most"),
    "<": (operator.lt, "below"),
}
# how the values of these types are written
SHAPES = {"bool": "true or false", "list": "a list, as in '[A,B]'", "dict": "names with values, as in '{A: B}'"}


def translate_error(message: str, options: Iterable[str]) -> UsageError:
    """Turn an error message of jsonargparse 4.5x into one line; a message of an unknown form is kept.

    Args:
        message: of jsonargparse; about a value, it lists all types that were tried.
        options: all options of the command, such as `--data.batch_size`.
    """
    unknown = re.search(r"unrecognized arguments: (\S+)|does not accept option '(.+)'", message)
    if unknown:
        return _unknown_option((unknown[1] or unknown[2]).partition("=")[0], bool(unknown[1]), options)
    group = re.search(r"""Parser key "(\w+)":\s+Unable to load config '(.*?)'""", message)
    if group:
        first = next((o for o in options if o.startswith(f"--{group[1]}.")), f"--{group[1]}")
        return UsageError(f"{group[1]} can't be {group[2]}; set its parts one by one, such as {first}.", group[1])
    keys = re.findall(r'Parser key "(.+?)"', message)
    if not keys or not re.search("Expected|Problem|does not conform", message):
        return UsageError(f"{' '.join(message.split()).rstrip('.')}.", "")
    within = re.search(r"Problem with given class_path '(.+)'", message)
    if within:
        return _class_error(within[1], keys, message)
    names = class_names(keys[0])
    if names and "Expected a dot import path string" in message:
        value = _value(message)
        return UsageError(f"{keys[0]} can't be {value}{nearest(value, names)}; give the name of a class.", keys[0])
    return _value_error(keys[0], message)


def describe_error(error: Exception) -> tuple[str, int]:
    """Return the message for an error that ended the command, and the exit status."""
    if isinstance(error, RequestError):
        return str(error), 2
    if isinstance(error, RunError):
        return str(error), 1
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # here, or --help would import torch

    text = " ".join(str(error).partition("Exception raised from")[0].split())  # without the traceback of C++
    if described := _describe_device(text) or _describe_class(error, text):
        return described, 2
    if isinstance(error, MisconfigurationException):
        return text, 2
    described = _describe_memory(error, text) or _describe_run(error, text)
    return described or f"{type(error).__name__}: {text}\nSet {DEBUG}=1 to see where it came from.", 1


def _describe_device(text: str) -> str | None:
    if "CUDAAccelerator` can not run" in text or "No supported gpu backend" in text:
        return "trainer.accelerator asks for a GPU, but no GPU can be used here. Leave it at auto, or give cpu."
    if "You requested gpu" in text:
        return f"trainer.devices asks for more GPUs than this machine has. {text}"
    return None


def _describe_class(error: Exception, text: str) -> str | None:
    """Describe a class, named by an option, that can't be imported or made."""
    if unmade := re.search(r"given class_path '(.+?)': (.+?)(?: HINT| - Expected|$)", text):
        return f"{unmade[1]} can't be made: {unmade[2]}"
    if "Does not validate against any of the Union subtypes" in text:
        reasons = re.findall(r"Errors: - (.+?)(?: - |$)", text)
        return f"a class that an option names can't be made: {(reasons or [text])[0]}"
    if isinstance(error, ModuleNotFoundError):
        return f"{text}. Correct the name of the class, or install the package that it is in."
    return None


def is_of_memory(error: Exception) -> bool:
    """Whether an error means that the memory is too small."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "array is too big")
    )


def _describe_memory(error: Exception, text: str) -> str | None:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU is out of memory. Lower data.batch_size, make the network smaller, or free the GPU. {text}"
    if is_of_memory(error):
        return f"this machine has too little memory. Lower data.batch_size, or make the network smaller. {text}"
    return None


def _describe_run(error: Exception, text: str) -> str | None:
    if isinstance(error, RuntimeError) and re.search(r"closed by peer|reset by peer|remote process|NCCL", text):
        return (
            "another process of this run was killed or failed, so this one has ended. If the run has saved a "
            "checkpoint, this resumes it, in as many processes or in another number: mnist-amp fit --ckpt_path last "
            f"({text[:200]})"
        )
    if "returned nan values in its" in text:
        return f"trainer.detect_anomaly found a gradient that is nan: {text} Set {DEBUG}=1 to see where."
    if isinstance(error, OSError):
        return f"{error.filename or 'a file, or standard output,'} can't be read or written: {error.strerror or text}."
    return None


def _unknown_option(name: str, is_argument: bool, options: Iterable[str]) -> UsageError:
    if name.lstrip("-") in RENAMED:
        return UsageError(f"{name.lstrip('-')} is now {RENAMED[name.lstrip('-')]}.", name.lstrip("-"))
    if is_argument and not name.startswith("-"):
        return UsageError(f"{name} is not an option; a config file is given as in --config {name}.", name)
    key = name.lstrip("-")
    level, dot, rest = key.partition(".")
    if dot and level in SUBCOMMANDS:
        return UsageError(f"there is no option {key}; leave out `{level}.`, as in --{rest}.", key)
    known = [option.lstrip("-") for option in options if not option.endswith(".help")]
    groups = {option.partition(".")[0] for option in known}
    near = get_close_matches(level, groups, n=1) if dot and level not in groups else []
    # the options of a class, such as optimizer.lr, are not among those of the parser
    hint = f" (did you mean {near[0]}.{rest}?)" if near else _in_a_group(key, known) or nearest(key, known)
    return UsageError(f"there is no option {key}{hint}.", key)


def _in_a_group(key: str, known: list[str]) -> str:
    """Suggest the option whose last part is this name or ends with it; empty if there is none.

    >>> _in_a_group("epochs", ["data.seed", "trainer.max_epochs"]), _in_a_group("seed", ["data.seed"])
    (' (did you mean trainer.max_epochs?)', ' (did you mean data.seed?)')
    """
    found = [option for option in known if option.endswith(f".{key}")]
    if ELSEWHERE.get(key, "").partition(".")[0] in known:
        found.append(ELSEWHERE[key])
    found += [option for option in known if "." in option and option.endswith(f"_{key}")]
    return f" (did you mean {found[0]}?)" if found else ""


def _class_error(class_path: str, keys: list[str], message: str) -> UsageError:
    """Describe a wrong argument of a class that an option names, such as an optimizer."""
    key, name = keys[0], class_path.rpartition(".")[2]
    known = _parameters(class_path)
    unknown = re.search(r"Option '(.+?)' is not accepted", message)
    if unknown and key == "network":
        known = [parameter for parameter in known if parameter not in FILLED]
        if unknown[1] in FILLED:
            text = f"{key}: {unknown[1]} is filled from the data, so it is no option. Leave it out."
            return UsageError(text, f"{key}.{unknown[1]}")
    if unknown and unknown[1] in known:  # a part of its value is wrong, such as a schedule in a schedule
        return UsageError(f"{key}: {name} can't use a part of {unknown[1]}.", f"{key}.{unknown[1]}")
    if unknown:
        takes = ", ".join(known) or "no parameters"
        text = f"{key}: {name} takes no {unknown[1]}{nearest(unknown[1], known)}; it takes {takes}."
        return UsageError(text, f"{key}.{unknown[1]}")
    missing = re.search(r"arguments are required: (.+)", message)
    if missing:
        return UsageError(f"{key}: {name} needs {missing[1]}, as in --{key}.{missing[1].split(',')[0]} VALUE.", key)
    return _value_error(".".join(keys[:2]), message)


def _value_error(key: str, message: str) -> UsageError:
    """Describe a value that an option does not take, by its range, its words or its types."""
    ranged = re.search(r"Not of type (.+?): (?:(\S+) )?does not conform to restriction (.+)", message)
    if ranged:
        return _range_error(key, ranged[1], ranged[2] or _value(message), ranged[3], _value(message).startswith("["))
    tried, value = message.partition("Given value type")[0], _value(message)
    words = ", ".join(re.findall(r"Expected an? typing\.Literal\[(.+?)\]", tried)).replace("'", "")
    types = [kind.rpartition(".")[2] for kind in re.findall(r"Expected (?:an? )?<class '([\w.]+)'>", tried)]
    types = [SHAPES.get(kind, kind) for kind in types]
    takes = words or " or ".join(kind for kind in dict.fromkeys(types) if kind != "NoneType") or "another kind of value"
    takes += " or a whole number" if words and "int" in types else ""
    # on the command line it would be text already
    hint = " In a file, put it in quotes." if "str" in types and re.fullmatch(r"-?[\d.]+|True|False", value) else ""
    return UsageError(f"{key} can't be {value}{nearest(value, words.split(', '))}; it takes {takes}.{hint}", key)


def _range_error(key: str, kind: str, value: str, restriction: str, in_list: bool) -> UsageError:
    """Describe a number that is out of the range of a jsonargparse type, such as `v>=1 and v<=9`."""
    comparison, bound = next(
        (found, bound)
        for found, bound in re.findall(r"v([<>]=?)(\S+)", restriction)
        if not COMPARISONS[found][0](float(value), float(bound))
    )
    if comparison == ">" and re.search(r"\bint\b|Int\b", kind):
        comparison, bound = ">=", str(int(bound) + 1)
    needed = "finite" if bound == "inf" else f"{COMPARISONS[comparison][1]} {bound}"
    return UsageError(f"{key} {'has' if in_list else 'is'} {value}; it must be {needed}.", key)


def _value(message: str) -> str:
    return str((re.findall(r"(?:Got value|Given value): (.*)", message) or ["that"])[0])


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter not in ("params", "optimizer")]
