"""Words that messages share: counts with their noun, suggestions, and names that can be printed."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def counted(number: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1200, "batch")
    '1,200 batches'
    """
    plural = f"{noun}es" if noun.endswith(("tch", "ss")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(parts: Sequence[str]) -> str:
    """Return parts as a list in a sentence.

    >>> listed(["width", "batch_size", "lr"])
    'width, batch_size and lr'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of the known word that is similar; empty if no word is.

    >>> nearest("fitt", ["fit", "test"])
    ' (did you mean fit?)'
    """
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def described_class(init: Mapping[str, Any]) -> str:
    """Return class_path and init_args as short text.

    >>> described_class({"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": 128}})
    'SimpleNN (hidden_dim 128)'
    """
    settings = (init.get("init_args") or {}).items()
    given = ", ".join(f"{name} {value}" for name, value in settings if value is not None)
    return str(init["class_path"]).rpartition(".")[2] + (f" ({given})" if given else "")


def printable(name: Path | str) -> str:
    r"""Return the name of a file or a class in one line, with escapes for characters and bytes that can't be printed.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
