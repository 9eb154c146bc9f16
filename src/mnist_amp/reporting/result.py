"""The result of a command, for a program or a notebook that runs it as a function. Without torch."""

import base64
import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Result:
    """The result of a command. As the last value of a notebook's cell, it shows the command's plots.

    Attributes:
        folder: the folder with the files of the command; None if it has written none.
        metrics: by name. `fit`: those of the epoch whose weights are in `model.pth`. `validate` and `test`: the content
            of `metrics.json`. `predict`: `predictions`, the rows of `predictions.csv`. `compare`, `profile` and
            `export`: the content of `results.json`.
    """

    folder: Path | None
    metrics: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the metrics from the file that a command has written into its folder."""
        if (table := folder / "predictions.csv").is_file():
            with table.open(encoding="utf-8", newline="") as file:
                return cls(folder, {"predictions": [_with_numbers(row) for row in csv.DictReader(file)]})
        file_of = next(path for name in ("metrics.json", "results.json") if (path := folder / name).is_file())
        return cls(folder, json.loads(file_of.read_text(encoding="utf-8")))

    @property
    def plots(self) -> list[Path]:
        """The image files in the folder."""
        return [] if self.folder is None else sorted(self.folder.glob("*.png"))

    def _repr_html_(self) -> str | None:
        if not self.plots:
            return None  # a notebook shows the text then
        images = (base64.b64encode(path.read_bytes()).decode() for path in self.plots)
        return "".join(f'<img src="data:image/png;base64,{image}" style="max-width: 100%">' for image in images)


def _with_numbers(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of `predictions.csv`, with numbers in its columns of numbers; empty ones are None."""
    return {name: (kind(text) if text else None) if (kind := _kind(name)) else text for name, text in row.items()}


def _kind(column: str) -> type[int] | type[float] | None:
    if column in ("page", "row", "digit"):
        return int
    is_probability = column == "probability" or (column[0] == "p" and column[1:].isdecimal())
    return float if is_probability or column == "distance" else None
