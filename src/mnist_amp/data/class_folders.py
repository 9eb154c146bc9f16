"""The names of folders for classes: those that images are saved in are those that they are read from."""

import os
from collections import Counter
from collections.abc import Sequence

from mnist_amp.wording import printable

LONGEST = 120  # bytes; some file systems take 143 at most


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return the name of a folder for each class: a name that any file system takes, and different for each class.

    `/` and a dot in front, which hides a folder, become `-`. Characters that can't be printed are escaped. The index is
    added to a name that several classes have, also if they differ in capitals only.

    Args:
        classes: the name of each class, in the order of the labels.

    >>> folder_names(["N/A", ".net", "crane", "Crane", ""])
    ['N-A', '-net', 'crane (2)', 'Crane (3)', 'class 4']
    """
    names = [_safe(name) or f"class {index}" for index, name in enumerate(classes)]
    counts = Counter(name.casefold() for name in names)
    numbered = [f"{name} ({index})" for index, name in enumerate(names)]
    unique = [new if counts[name.casefold()] > 1 else name for name, new in zip(names, numbered, strict=True)]
    return unique if len({name.casefold() for name in unique}) == len(unique) else numbered


def folder_labels(classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each name that the folder of a class may have: that of `folder_names`, or the class's own.

    >>> folder_labels(["N/A", "a", "A"])
    {'N/A': 0, 'a': 1, 'A': 2, 'N-A': 0, 'a (1)': 1, 'A (2)': 2}
    """
    counts = Counter(classes)
    own = {name: label for label, name in enumerate(classes) if counts[name] == 1}
    return own | {name: label for label, name in enumerate(folder_names(classes))}


def cut_name(name: str) -> str:
    """Return the beginning of a file's or a folder's name, in at most LONGEST bytes.

    >>> len(cut_name("ü" * 200))
    60
    """
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST else encoded[:LONGEST].decode(errors="ignore")


def _safe(name: str) -> str:
    name = printable(name).replace("/", "-").strip()
    return cut_name(f"-{name[1:]}" if name.startswith(".") else name)
