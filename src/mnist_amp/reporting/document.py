r"""A report as a document with two renderings: Markdown, to read and to paste, and one HTML file with the charts.

Background. A report used to be Markdown alone, with links to charts beside it. Pasted into an issue, the links were
broken. So the content is written once, as blocks without any markup, and each rendering escapes the text by its own
rules: the name of a class is whatever its author has chosen, `<b>` included.

Without torch.

Examples:
    >>> blocks = [Heading("Time"), Text("Of a ", Code("<b>"), " step."), Table([["a", "b"], ["1", "2|3"]])]
    >>> print(to_markdown(Document("Which precision to use", blocks)))
    # Which precision to use
    <BLANKLINE>
    ## Time
    <BLANKLINE>
    Of a `<b>` step.
    <BLANKLINE>
    | a | b |
    |---|---|
    | 1 | 2\|3 |
    <BLANKLINE>
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_amp.wording import counted

LONG = 20  # a table with more rows is collapsed
CHARTS_NOTE = "These files are beside this report; `report.html` holds them all in one file."


@dataclass(frozen=True)
class Code:
    """Text within a line that is shown as code: a command, or the name of an operation."""

    text: str


Inline = str | Code


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    text: str


@dataclass(frozen=True, init=False)
class Text:
    """A paragraph of plain text and code."""

    parts: tuple[Inline, ...]

    def __init__(self, *parts: Inline) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True)
class Bullets:
    """A list of paragraphs."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Table:
    """A table; one with more than 20 rows is collapsed.

    Attributes:
        rows: of cells, the head first. All rows have the same number of cells.
        title: what the rows are, for the line that a collapsed table is reduced to.
    """

    rows: Sequence[Sequence[Inline]]
    title: str = "Table"

    @property
    def summary(self) -> str | None:
        """Return the line that stands for the collapsed table; None if it is short enough to be shown."""
        body = len(self.rows) - 1
        return f"{self.title}, {counted(body, 'row')}" if body > LONG else None


@dataclass(frozen=True)
class Chart:
    """A PNG file. In HTML it stands where the block is; in Markdown all charts stand in a last section.

    Attributes:
        title: what the chart shows.
        file: its name in the folder of the report.
    """

    title: str
    file: str


@dataclass(frozen=True)
class Pie:
    """The parts of a whole. Markdown has a Mermaid diagram, which GitHub draws; HTML has a PNG file of the same parts.

    Attributes:
        title: what the whole is.
        percents: of the parts, by name.
        file: name of the PNG file in the folder of the report.
    """

    title: str
    percents: Mapping[str, float]
    file: str


Block = Heading | Text | Bullets | Table | Chart | Pie


@dataclass(frozen=True)
class Document:
    """A report: its title, and its blocks from top to bottom."""

    title: str
    blocks: Sequence[Block]


def to_markdown(document: Document) -> str:
    """Return a document as GitHub's Markdown. The links to charts are in one section at its end."""
    charts = [block for block in document.blocks if isinstance(block, Chart)]
    texts = [_markdown(block) for block in document.blocks if not isinstance(block, Chart)]
    if charts:
        texts += ["## Charts", CHARTS_NOTE]
        texts += [f"![{_escaped(chart.title)}]({chart.file})" for chart in charts]
    return "\n\n".join([f"# {_escaped(document.title)}", *texts]) + "\n"


def _markdown(block: Heading | Text | Bullets | Table | Pie) -> str:
    match block:
        case Heading(text):
            return f"## {_escaped(text)}"
        case Text(parts):
            return _markdown_line(parts)
        case Bullets(items):
            return "\n".join(f"- {_markdown_line(item.parts)}" for item in items)
        case Table():
            return _markdown_table(block)
        case Pie(title, percents, _):
            names = {name: name.replace('"', "'") for name in percents}
            slices = [f'    "{names[name]}" : {percent:.1f}' for name, percent in percents.items() if percent > 0]
            return "\n".join(["```mermaid", f"pie showData title {title}", *slices, "```"])


def _markdown_table(table: Table) -> str:
    head, *body = [f"| {' | '.join(_markdown_cell(cell) for cell in row)} |" for row in table.rows]
    text = "\n".join([head, f"|{'---|' * len(table.rows[0])}", *body])
    if table.summary is None:
        return text
    return f"<details>\n<summary>{html.escape(table.summary)}</summary>\n\n{text}\n\n</details>"


def _markdown_cell(cell: Inline) -> str:
    return _markdown_line([cell]).replace("|", r"\|")  # in code as well


def _markdown_line(parts: Sequence[Inline]) -> str:
    text = "".join(_markdown_code(part.text) if isinstance(part, Code) else _escaped(part) for part in parts).strip()
    return re.sub(r"^(\d*)([-#+>.)])(?=\s|#)", r"\1\\\2", text)  # it is no list, heading or quotation


def _markdown_code(text: str) -> str:
    """Return text as code, between more backticks than it has in a row.

    >>> print(_markdown_code("a"), _markdown_code("a`b"))
    `a` `` a`b ``
    """
    text = " ".join(text.split())
    longest = max(map(len, re.findall("`+", text)), default=0)
    return f"`{text}`" if longest == 0 else f"{'`' * (longest + 1)} {text} {'`' * (longest + 1)}"


def _escaped(text: str) -> str:
    r"""Return plain text as Markdown in one line. Only what would be markup is escaped, so that it stays readable.

    >>> print(_escaped("<b> and *x* of batch_size, __init__ [1](2)"))
    &lt;b> and \*x\* of batch_size, \_\_init\_\_ [1]\(2)
    """
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\\(?=[!-/:-@\[-`{-~])", r"\\\\", text)  # before the backslashes that are added
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    text = re.sub(r"[*`~$]", r"\\\g<0>", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # one within a word is no markup
    return text.replace("](", r"]\(")


STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #ffffff; --line: #d1d9e0; --shade: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --back: #0d1117; --line: #3d444d; --shade: #151b23; }
}
body { margin: 0; color: var(--text); background: var(--back); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.25; }
h2 { margin-top: 2rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
code { padding: 0.1em 0.3em; border-radius: 4px; background: var(--shade); font-size: 0.9em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.7rem; border: 1px solid var(--line); text-align: left; white-space: nowrap; }
td.long { min-width: 16rem; white-space: normal; }
th { background: var(--shade); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; padding: 0.4rem 0; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { font-size: 0.9rem; }
"""
# the browser itself refuses to load anything from elsewhere
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LONG_CELL = 40  # characters from which on a cell has several lines


def to_html(document: Document, folder: Path) -> str:
    """Return a document as one HTML file without scripts. It holds the charts, and refers to no other file.

    Args:
        document: to be rendered.
        folder: of the charts.

    Raises:
        OSError: a chart can't be read.
    """
    title = html.escape(document.title)
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
    ]
    body = [f"<h1>{title}</h1>", *(_html(block, folder) for block in document.blocks)]
    opened = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>"]
    return "\n".join([*opened, *body, "</main>", "</body>", "</html>"]) + "\n"


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Text(parts):
            return f"<p>{''.join(map(_html_inline, parts))}</p>"
        case Bullets(items):
            lines = [f"<li>{''.join(map(_html_inline, item.parts))}</li>" for item in items]
            return "\n".join(["<ul>", *lines, "</ul>"])
        case Table():
            return _html_table(block)
        case Chart(title, file) | Pie(title, _, file):
            return _html_chart(title, (folder / file).read_bytes())


def _html_inline(part: Inline) -> str:
    return f"<code>{html.escape(part.text)}</code>" if isinstance(part, Code) else html.escape(part)


def _html_table(table: Table) -> str:
    head, *body = table.rows
    is_number = [_is_numeric([row[column] for row in body]) for column in range(len(head))]
    rows = [_html_row("th", head, is_number), *(_html_row("td", row, is_number) for row in body)]
    text = "\n".join(['<div class="scroll" tabindex="0">', "<table>", *rows, "</table>", "</div>"])
    if table.summary is None:
        return text
    return f"<details>\n<summary>{html.escape(table.summary)}</summary>\n{text}\n</details>"


def _is_numeric(cells: Sequence[Inline]) -> bool:
    """Whether a column has numbers, and nothing else but dashes."""
    texts = [cell if isinstance(cell, str) else cell.text for cell in cells]
    numbers = [bool(re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?%?", text)) for text in texts if text != "-"]
    return bool(numbers) and all(numbers)


def _html_row(tag: str, row: Sequence[Inline], is_number: Sequence[bool]) -> str:
    cells = []
    for cell, numeric in zip(row, is_number, strict=True):
        is_long = len(cell if isinstance(cell, str) else cell.text) > LONG_CELL
        kind = ' class="number"' if numeric else ' class="long"' if is_long else ""
        cells.append(f"<{tag}{kind}>{_html_inline(cell)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _html_chart(title: str, png: bytes) -> str:
    data, text = base64.b64encode(png).decode(), html.escape(title)
    image = f'<img src="data:image/png;base64,{data}" alt="{text}">'
    return f"<figure>\n{image}\n<figcaption>{text}</figcaption>\n</figure>"
