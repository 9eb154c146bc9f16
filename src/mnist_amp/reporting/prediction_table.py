"""The text that `predict --images` prints. Without torch."""

from mnist_amp.reporting.contact_sheet import Tile
from mnist_amp.reporting.tables import facts, table

MAX_LISTED = 30  # of more images, only those with a note are listed, at most this many


def prediction_table(tiles: list[Tile], folder: str | None, files: list[str]) -> str:
    """Lay out the predictions for image files.

    Up to 30 images are all listed. Of more, only those with a note are listed, the images that were not scored first.

    Args:
        tiles: the images with their predictions.
        folder: the folder of the files; None if they could not be written.
        files: the names of the files that were written.
    """
    noted = sorted((tile for tile in tiles if tile.note), key=lambda tile: tile.guess is not None)
    listed = tiles if len(tiles) <= MAX_LISTED else noted[:MAX_LISTED]
    parts = ["", table([["file", "guess", "probability", "note"], *map(_row, listed)])] if listed else []
    if (more := len(noted) - len(listed)) > 0:
        parts.append(f"and {more:,} more with a note: see predictions.csv")
    unsure = sum(tile.guess is not None for tile in noted)
    lines = {
        "images": f"{len(tiles):,} ({unsure:,} unsure, {len(noted) - unsure:,} not scored)",
    }
    if folder is not None:
        lines["files"] = f"{folder}/ ({', '.join(files)})"
    return "\n".join([*parts, "", facts(lines)])


def _row(tile: Tile) -> list[str]:
    if tile.guess is None:
        return [tile.name, "", "", tile.note]
    return [tile.name, str(tile.guess), f"{tile.probability:.1%}", tile.note]
