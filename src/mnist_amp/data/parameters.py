"""Parameters of dataset classes, and the arguments that are given for them."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from mnist_amp.errors import RequestError
from mnist_amp.wording import nearest


def parameters(cls: type) -> tuple[set[str], bool]:
    """Return the names of a class's parameters, and whether it takes any other by name.

    A constructor with `**kwargs` passes them on to the next class of the inheritance, as EMNIST does.

    >>> class Base:
    ...     def __init__(self, root, train=True): ...
    >>> class Derived(Base):
    ...     def __init__(self, root, split, **kwargs): ...
    >>> names, takes_any = parameters(Derived)
    >>> sorted(names), takes_any
    (['root', 'split', 'train'], False)
    """
    names: set[str] = set()
    for base in cls.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        given = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names |= {p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind is not p.VAR_KEYWORD for p in given):
            return names, False
    return names, bool(names)


def check_arguments(name: str, arguments: Mapping[str, Any], accepted: Collection[str], fixed: Collection[str]) -> None:
    """Refuse arguments that a class doesn't take, or that the command sets itself.

    Args:
        name: of the class, for messages.
        arguments: the user's `dataset_args`.
        accepted: names of parameters that may be given.
        fixed: names of parameters that the command sets.

    Raises:
        RequestError: an argument is refused.
    """
    for key in arguments:
        if key in fixed:
            raise RequestError(f"data.dataset_args sets {key}, which the command sets itself for {name}. Leave it out.")
        if key not in accepted:
            takes = f"takes {', '.join(sorted(accepted))}" if accepted else "takes none"
            raise RequestError(
                f"data.dataset_args has {key}, but {name} has no such argument{nearest(key, accepted)}; it {takes}."
            )
