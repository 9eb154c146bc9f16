"""Words that messages share: counts of things, and suggestions."""

from collections.abc import Iterable
from difflib import get_close_matches


def counted(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("tch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word is meant, if one is near."""
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
