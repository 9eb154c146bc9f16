"""Names of classes in reports: unique, in one line, and short enough for a plot or a terminal. Without torch."""

from collections import Counter
from collections.abc import Sequence

from mnist_amp.wording import printable


def unique_names(classes: Sequence[str]) -> list[str]:
    """Return the names of classes as reports have them: the index is added to a name that several classes have.

    Characters that can't be printed are escaped.

    Args:
        classes: the name of each class, in the order of the labels.

    >>> unique_names(["heron", "crane", "crane"])
    ['heron', 'crane (1)', 'crane (2)']
    """
    names = [printable(name) for name in classes]
    counts = Counter(names)
    numbered = [f"{name} ({index})" for index, name in enumerate(names)]
    unique = [new if counts[name] > 1 else name for name, new in zip(names, numbered, strict=True)]
    return unique if len(set(unique)) == len(unique) else numbered


def shortened(name: str, length: int) -> str:
    """Return a name in at most this many characters (4 or more). It loses its middle, because names share beginnings.

    >>> shortened("golden retriever", 12)
    'golde...ever'
    """
    if len(name) <= length:
        return name
    kept = length - 3
    return f"{name[: kept - kept // 2]}...{name[-(kept // 2) :]}" if kept > 1 else f"{name[:kept]}..."
