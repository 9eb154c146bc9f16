"""The files of a report: its charts, `report.md`, and `report.html`, which holds the charts. Without torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_amp.reporting.document import Document, to_html, to_markdown
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Charts = Mapping[str, Callable[[], "Figure"]]  # what draws each chart, by the name of its file


def write_report(document: Document, charts: Charts, folder: Path) -> None:
    """Write a report and its charts.

    Args:
        document: its charts must be among `charts`.
        charts: PNG files to draw.
        folder: to write to. It may have files of the same names, which are replaced.

    Raises:
        RunError: a file can't be written.

    Examples:
        >>> blocks = [Chart("Training loss", "loss.png")]  # doctest: +SKIP
        >>> draw = lambda: charts.losses({"32-true": [(1, 2.3), (2, 1.9)]}, ["32-true"])  # doctest: +SKIP
        >>> write_report(Document("A report", blocks), {"loss.png": draw}, folder)  # doctest: +SKIP
    """
    for name, draw in charts.items():
        with atomic_write(folder / name) as temporary:
            draw().savefig(temporary)
    for name, text in (("report.md", to_markdown(document)), ("report.html", to_html(document, folder))):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def described_files(folder: Path | str, charts: int) -> str:
    """Return the files of a report as the terminal shows them.

    Args:
        folder: of the files.
        charts: their number.

    >>> described_files("logs/version_0", 2)
    'logs/version_0/ (report.html, report.md, results.json, 2 charts)'
    """
    return f"{folder}/ (report.html, report.md, results.json, {counted(charts, 'chart')})"
