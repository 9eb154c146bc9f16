"""What the commands print, made from plain records; no torch here."""

from typing import Any


def facts(lines: dict[str, str]) -> str:
    """Lay out names and what they stand for in two columns."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def fit_summary(
    *, accuracy: float, validated: bool, epochs: int, images: int, seconds: float, folder: str, next_steps: list[str]
) -> str:
    """Sum up a fit.

    Args:
        accuracy: of the weights that `model.pth` holds, 0 to 1.
        validated: whether on the validation images, not the training images.
        epochs: how many epochs these weights have behind them.
        images: how many images were trained on, epochs counted.
        seconds: time of training and validation.
        folder: of the run.
        next_steps: commands that one may want to run now.
    """
    which = "validation images, the best" if validated else "training images, as none were held out,"
    lines = {
        "accuracy": f"{accuracy:.2%} on the {which} after {counted(epochs, 'epoch')}",
        "time": f"{seconds:.1f} s, {images / seconds:,.0f} samples/s (training, validation and checkpoints)",
        "files": f"{folder}/ (model.pth, curves.png, metrics.csv, checkpoints/, config.yaml)",
        "next": next_steps[0],
    }
    return "\n".join(["", facts(lines), *(f"{'':10}{step}" for step in next_steps[1:])])


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
