"""The text that `predict --images` prints. Without torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from mnist_amp.reporting.class_names import shortened, unique_names
from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.reporting.tables import table
from mnist_amp.wording import listed

MAX_LISTED = 30  # of more images, only those with a note are listed, at most this many
FEW = 10  # classes, with which the next guesses are not listed
NAME = 24  # characters of the name of a class


def prediction_table(images: Mapping[str, list[Tile]], classes: Sequence[str]) -> str:
    """Lay out the predictions for image files; empty if none is listed.

    Up to 30 images are all listed. Of more, only those with a note are listed, the images that were not scored first.
    An image of several digits is one line: with the number, and the lowest of the digits' probabilities. With more than
    10 classes, a column has the next two guesses.

    Args:
        images: the digits of each image with their predictions, by the name of the image.
        classes: the name of each class, in the order of the probabilities.
    """
    noted = sorted(
        (name for name, tiles in images.items() if has_note(tiles)), key=lambda name: is_scored(images[name])
    )
    shown = list(images) if len(images) <= MAX_LISTED else noted[:MAX_LISTED]
    if not shown:
        return ""
    names = [shortened(name, NAME) for name in unique_names(classes)]
    head = ["file", "guess", "probability", *(["next guesses"] if len(names) > FEW else []), "note"]
    parts = [table([head, *(_row(name, images[name], names) for name in shown)])]
    if len(images) > MAX_LISTED:
        parts.insert(0, "The images with a note:")
    if (more := len(noted) - len(shown)) > 0:
        parts.append(f"and {more:,} more with a note: see predictions.csv")
    return "\n".join(["", *parts, ""])


def image_counts(images: Mapping[str, list[Tile]]) -> str:
    """Return how many images there are, with a note, and not scored.

    >>> image_counts({"a.png": [Tile("a.png", np.zeros((28, 28), np.uint8), None, "no ink")]})
    '1 (0 with a note, 1 not scored)'
    """
    scored = [tiles for tiles in images.values() if is_scored(tiles)]
    with_note = sum(map(has_note, scored))
    return f"{len(images):,} ({with_note:,} with a note, {len(images) - len(scored):,} not scored)"


def number(tiles: list[Tile], names: Sequence[str]) -> str:
    """Return the guesses for the digits of an image, row by row. A digit that was not scored is a question mark.

    >>> one = Tile("a.png", np.zeros((28, 28), np.uint8), [0.1, 0.9], "")
    >>> number([one, one, one._replace(row=2)], ["0", "1"])
    '11 1'
    """
    between = "" if all(len(name) == 1 for name in names) else " "
    rows: dict[int, list[str]] = {}
    for tile in tiles:
        rows.setdefault(tile.row, []).append("?" if tile.guess is None else names[tile.guess])
    return " ".join(between.join(guesses) for guesses in rows.values())


def has_note(tiles: list[Tile]) -> bool:
    return any(tile.note for tile in tiles)


def is_scored(tiles: list[Tile]) -> bool:
    return any(tile.guess is not None for tile in tiles)


def _row(name: str, tiles: list[Tile], names: list[str]) -> list[str]:
    following = [] if len(names) <= FEW else [_next_guesses(tiles[0], names) if len(tiles) == 1 else ""]
    if not is_scored(tiles):
        return [name, "", "", *following, tiles[0].note]
    lowest = min(tile.probability for tile in tiles if tile.probability is not None)
    return [name, number(tiles, names), f"{lowest:.1%}", *following, _note(tiles)]


def _note(tiles: list[Tile]) -> str:
    if len(tiles) == 1:
        return tiles[0].note
    digits: dict[str, list[str]] = {}  # by note
    for index, tile in enumerate(tiles, 1):
        for note in filter(None, tile.note.split("; ")):
            digits.setdefault(note, []).append(str(index))
    return "; ".join(
        note if len(each) == len(tiles) else f"digit {listed(each)}: {note}" for note, each in digits.items()
    )


def _next_guesses(tile: Tile, names: list[str]) -> str:
    if tile.probabilities is None:
        return ""
    following = np.argsort(-np.array(tile.probabilities), kind="stable")[1:3].tolist()
    return ", ".join(f"{names[index]} {tile.probabilities[index]:.1%}" for index in following)
