"""The text that `predict --images` prints. Without torch."""

from collections.abc import Sequence

import numpy as np

from mnist_amp.reporting.class_names import shortened, unique_names
from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.reporting.tables import facts, table

MAX_LISTED = 30  # of more images, only those with a note are listed, at most this many
FEW = 10  # classes, with which the next guesses are not listed
NAME = 24  # characters of the name of a class


def prediction_table(tiles: list[Tile], folder: str | None, files: list[str], classes: Sequence[str]) -> str:
    """Lay out the predictions for image files.

    Up to 30 images are all listed. Of more, only those with a note are listed, the images that were not scored first.
    With more than 10 classes, a column has the next two guesses.

    Args:
        tiles: the images with their predictions.
        folder: the folder of the files; None if they could not be written.
        files: the names of the files that were written.
        classes: the name of each class, in the order of the probabilities.
    """
    noted = sorted((tile for tile in tiles if tile.note), key=lambda tile: tile.guess is not None)
    listed = tiles if len(tiles) <= MAX_LISTED else noted[:MAX_LISTED]
    names = [shortened(name, NAME) for name in unique_names(classes)]
    head = ["file", "guess", "probability", *(["next guesses"] if len(names) > FEW else []), "note"]
    parts = ["", table([head, *(_row(tile, names) for tile in listed)])] if listed else []
    if (more := len(noted) - len(listed)) > 0:
        parts.append(f"and {more:,} more with a note: see predictions.csv")
    unsure = sum(tile.guess is not None for tile in noted)
    lines = {
        "images": f"{len(tiles):,} ({unsure:,} unsure, {len(noted) - unsure:,} not scored)",
    }
    if folder is not None:
        lines["files"] = f"{folder}/ ({', '.join(files)})"
    return "\n".join([*parts, "", facts(lines)])


def _row(tile: Tile, names: list[str]) -> list[str]:
    is_long = len(names) > FEW
    if tile.guess is None or tile.probabilities is None:
        return [tile.name, "", "", *([""] if is_long else []), tile.note]
    following = np.argsort(-np.array(tile.probabilities), kind="stable")[1:3].tolist()
    others = ", ".join(f"{names[index]} {tile.probabilities[index]:.1%}" for index in following)
    return [tile.name, names[tile.guess], f"{tile.probability:.1%}", *([others] if is_long else []), tile.note]
