"""What the commands print, made from plain records; no torch here."""

import re
from typing import TYPE_CHECKING, Any

from mnist_amp.wording import counted

if TYPE_CHECKING:
    from mnist_amp.reporting.contact_sheet import Tile

FEW = 30  # pictures that are listed, each with its guess; of more, as many of those that there is something to say of


def facts(lines: dict[str, str]) -> str:
    """Lay out names and what they stand for in two columns."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def fit_summary(
    part: str,
    accuracy: float | None,
    *,
    epochs: int | None,
    images: int,
    seconds: float,
    data_seconds: float | None,
    replayed: tuple[int, int, str | None] | None,
    device_memory: int | None,
    folder: str,
    files: list[str],
    next_steps: list[str],
) -> str:
    """Sum up a fit.

    Args:
        part: the images that the accuracy is of: `validation`, or `training` where none were held out.
        accuracy: 0 to 1, of the weights that `model.pth` holds; None if it is not known.
        epochs: how many epochs these weights have behind them; None if no checkpoint was kept.
        images: how many images were trained on, epochs counted.
        seconds: time of training and validation.
        data_seconds: how much of it went by in waiting for the images to train on; None if that is not known.
        replayed: how many optimizer steps were replayed as CUDA graphs, of how many, and what forbade more; None where
            that was out of question.
        device_memory: bytes that tensors took on a CUDA device at most; None on a CPU.
        folder: of the run.
        files: the main ones in it.
        next_steps: commands that one may want to run now.
    """
    result = "not known" if accuracy is None else f"{accuracy:.2%} on the {part} images"
    if epochs is not None:
        result += f", {'the best' if part == 'validation' else 'with no validation,'} after {counted(epochs, 'epoch')}"
    seconds = max(seconds, 1e-9)
    parts = "training, validation and checkpoints"
    if data_seconds is not None:
        parts += f"; {data_seconds / seconds:.1%} of it waiting for data"
    lines = {
        "accuracy": result,
        "time": f"{seconds:.1f} s, {images / seconds:,.0f} samples/s ({parts})",
        **({} if replayed is None else {"execution": _replayed(*replayed)}),
        **({} if device_memory is None else {"memory": f"{device_memory / 1e6:,.0f} MB on the device at most"}),
        "files": f"{folder}/ ({', '.join(files)})",
    }
    if next_steps:
        lines["next"] = ("\n" + " " * (max(map(len, lines)) + 2)).join(next_steps)
    return "\n" + facts(lines)


def _replayed(steps: int, taken: int, reason: str | None) -> str:
    text = f"{steps:,} of {taken:,} optimizer steps replayed as CUDA graphs"
    how = f"one after the other, as {reason}" if reason else "before the capture"
    return text if steps == taken else f"{text}, {'the others' if steps else 'all'} {how}"


def evaluation(record: dict[str, Any], folder: str) -> str:
    """Lay out the figures of a `validate` or `test`; the record is what `metrics.json` holds."""
    rows = [
        f"{row['digit']:5d}  {row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1']:6.4f}  {row['images']:6,d}"
        for row in record["per_digit"]
    ]
    lines = {
        "loss": f"{record['loss']:.4f}",
        "accuracy": f"{record['accuracy']:.2%} of {record['images']:,} images",
        "files": f"{folder}/ (metrics.json, confusion_matrix.png, misclassified.png)",
    }
    return "\n".join(["", "digit  precision  recall      F1  images", *rows, "", facts(lines)])


def image_predictions(tiles: list["Tile"], folder: str, files: list[str]) -> str:
    """Lay out what a model made of pictures: of few in full, of many how many there is something to say of."""
    noted = sorted((tile for tile in tiles if tile.note), key=lambda tile: tile.guess is not None)
    listed = tiles if len(tiles) <= FEW else noted[:FEW]
    rows = [
        [tile.name, "" if tile.guess is None else str(tile.guess), _percent(tile.probability), tile.note]
        for tile in listed
    ]
    unsure = sum(tile.guess is not None for tile in noted)
    counts = f"{len(tiles):,}, {unsure:,} of them unsure, {len(noted) - unsure:,} not scored"
    lines = {"images": counts, "files": f"{folder}/ ({', '.join(files)})"}
    shown = ["", table([["file", "guess", "probability", "note"], *rows])] if rows else []
    if (more := len(noted) - len(listed)) > 0:
        shown.append(f"and {more:,} more with a note, see predictions.csv")
    return "\n".join([*shown, "", facts(lines)])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def table(lines: list[list[str]]) -> str:
    """Lay out cells in columns, the first line as their head; columns of numbers are flush right."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [any(re.fullmatch(r"[\d.,]+%?", cell) for cell in column[1:]) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(lines: list[list[str]]) -> str:
    """Lay out cells as a Markdown table, the first line as its head."""
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *body])
