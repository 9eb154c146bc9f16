"""What jsonargparse, Lightning, torch and the system complain of, in the words of this command."""

import errno
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from mnist_amp.cli.arguments import DEBUG
from mnist_amp.errors import RequestError, RunError, UsageError
from mnist_amp.wording import nearest

# where the classes are that these options name
MODULES = {
    "optimizer": "torch.optim",
    "lr_scheduler": "torch.optim.lr_scheduler",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.plugins": "lightning.pytorch.plugins",
}


def translate_error(message: str, options: Iterable[str]) -> UsageError:
    """Turn a complaint of jsonargparse 4.5x into one of a line; one of another form is kept as it is.

    Args:
        message: the complaint; about a value, it lists all types that it was tried as.
        options: the options that there are, such as `--data.batch_size`.
    """
    unknown = re.search(r"unrecognized arguments: (\S+)|does not accept option '(.+)'", message)
    if unknown:
        name = (unknown[1] or unknown[2]).partition("=")[0]
        if unknown[1] and not name.startswith("-"):
            return UsageError(f"{name} belongs to no option; settings are given as in --config {name}.", name)
        key = name.lstrip("-")
        return UsageError(f"there is no option {key}{nearest(key, [o.lstrip('-') for o in options])}.", key)
    group = re.search(r"""Parser key "(\w+)":\s+Unable to load config '(.*?)'""", message)
    if group:
        first = next((o for o in options if o.startswith(f"--{group[1]}.")), f"--{group[1]}")
        return UsageError(f"{group[1]} can't be {group[2]}; its settings are given one by one, as {first}.", group[1])
    keys = re.findall(r'Parser key "(.+?)"', message)
    if not keys or ("Expected" not in message and "Problem" not in message):
        return UsageError(f"{' '.join(message.split()).rstrip('.')}.", "")
    within = re.search(r"Problem with given class_path '(.+)'", message)
    if within:
        return _within(within[1], keys, message)
    key = keys[0]
    value = _value(message)
    names = _classes(key)
    if names and "Expected a dot import path string" in message:
        return UsageError(f"{key} can't be {value}{nearest(value, names)}; it is the name of a class.", key)
    return _refused(key, message)


def describe_error(error: Exception) -> tuple[str, int]:
    """Return what to tell the user of an error that ended the command, and the exit status."""
    if isinstance(error, RequestError):
        return str(error), 2
    if isinstance(error, RunError):
        return str(error), 1
    import torch  # an error of another kind comes from them or after them
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    text = " ".join(str(error).partition("Exception raised from")[0].split())  # without C++'s own traceback
    wrong = isinstance(error, MisconfigurationException | RecursionError | ModuleNotFoundError)
    wrong = wrong or "embedded null byte" in text or getattr(error, "errno", 0) == errno.ENAMETOOLONG
    status = 2 if wrong else 1
    unmade = re.search(r"given class_path '(.+?)': (.+?)(?: HINT| - Expected|$)", text)
    if "CUDAAccelerator` can not run" in text or "No supported gpu backend" in text:
        text = "trainer.accelerator asks for a GPU, but none can be used here. Leave it at auto, or ask for cpu."
    elif "You requested gpu" in text:
        text = f"trainer.devices asks for more GPUs than there are. {text}"
    elif isinstance(error, torch.OutOfMemoryError):
        text = f"the GPU is out of memory; lower data.batch_size or model.hidden_dim, or free the GPU. {text}"
    elif "can't allocate memory" in text or "array is too big" in text:
        text = f"there is not enough memory; lower model.hidden_dim or data.batch_size. {text}"
    elif isinstance(error, RuntimeError) and re.search(r"closed by peer|reset by peer|remote process|NCCL", text):
        text = (
            "another process of this run was lost, killed or by an error of its own, so this one has ended, too. "
            f"If it has saved a checkpoint, go on with --ckpt_path last. ({text[:200]})"
        )
    elif unmade:
        text, status = f"{unmade[1]} can't be made: {unmade[2]}", 2
    elif "returned nan values in its" in text:
        text = f"trainer.detect_anomaly has found a gradient that is not a number: {text} Set {DEBUG}=1 to see where."
    elif isinstance(error, ModuleNotFoundError):
        text += ". Correct the name of the class, or install what it is in."
    elif isinstance(error, RecursionError):
        text = "a setting is nested too deeply."
    elif "embedded null byte" in text:
        text = "the name of a file or folder has a null character in it."
    elif isinstance(error, OSError):
        text = f"{error.filename or 'a file'} can't be read or written: {error.strerror or text}."
    elif not isinstance(error, MisconfigurationException):
        text = f"{type(error).__name__}: {text}\nSet {DEBUG}=1 to see where it came from."
    return text, status


def _within(class_path: str, keys: list[str], message: str) -> UsageError:
    """Complain of what a class is given, such as an optimizer."""
    key, name = keys[0], class_path.rpartition(".")[2]
    takes = _parameters(class_path)
    unknown = re.search(r"Option '(.+?)' is not accepted", message)
    if unknown:
        text = f"{key}: {name} takes no {unknown[1]}{nearest(unknown[1], takes)}; it takes {', '.join(takes)}."
        return UsageError(text, f"{key}.{unknown[1]}")
    missing = re.search(r"arguments are required: (.+)", message)
    if missing:
        return UsageError(f"{key}: {name} needs {missing[1]}, as in --{key}.{missing[1].split(',')[0]} VALUE.", key)
    return _refused(".".join(keys[:2]), message)


def _refused(key: str, message: str) -> UsageError:
    """Complain of a value, with the types that it was tried as, or the words that the option takes."""
    tried, value = message.partition("Given value type")[0], _value(message)
    words = ", ".join(re.findall(r"Expected an? typing\.Literal\[(.+?)\]", tried)).replace("'", "")
    types = [kind.rpartition(".")[2] for kind in re.findall(r"Expected (?:an? )?<class '([\w.]+)'>", tried)]
    types = ["a list, as in '[A,B]'" if kind == "list" else kind for kind in types]
    takes = words or " or ".join(kind for kind in dict.fromkeys(types) if kind != "NoneType") or "another kind of value"
    return UsageError(f"{key} can't be {value}{nearest(value, words.split(', '))}; it takes {takes}.", key)


def _value(message: str) -> str:
    return str((re.findall(r"(?:Got value|Given value): (.*)", message) or ["that"])[0])


def _classes(key: str) -> list[str]:
    if key not in MODULES:
        return []
    return [name for name, found in vars(importlib.import_module(MODULES[key])).items() if inspect.isclass(found)]


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter not in ("params", "optimizer")]
