"""Words that messages share: counts with their noun, and suggestions."""

from collections.abc import Iterable
from difflib import get_close_matches


def counted(number: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1200, "batch")
    '1,200 batches'
    """
    plural = f"{noun}es" if noun.endswith(("tch", "ss")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of the known word that is similar; empty if no word is.

    >>> nearest("fitt", ["fit", "test"])
    ' (did you mean fit?)'
    """
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
