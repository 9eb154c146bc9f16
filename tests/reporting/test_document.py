"""A document and its two renderings."""

import base64
import doctest
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mnist_amp.errors import RunError
from mnist_amp.reporting import document, report_files
from mnist_amp.reporting.chart_style import new_figure
from mnist_amp.reporting.document import (
    Bullets,
    Chart,
    Code,
    Document,
    Heading,
    Inline,
    Pie,
    Table,
    Text,
    to_html,
    to_markdown,
)
from mnist_amp.reporting.report_files import write_report

PNG = b"\x89PNG any"
DOCUMENT = Document(
    "Which <b>?",
    [
        Text("Measured by ", Code("mnist-amp compare"), "."),
        Bullets([Text("Use <b> & co"), Text("or *not*")]),
        Chart("Time & more", "time.png"),
        Heading("Memory | MB"),
        Pie("A step, in percent", {"forward": 75.0, "unscale": 0.0, 'the "rest"': 25.0}, "profile.png"),
        Table([("name", "MB"), ("a|b", "1.50"), (Code("c|d"), "-")]),
    ],
)


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and tags that are not closed as they were opened.

    Args:
        text: of the page.
    """

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.opened: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] != "style" and data.strip():
            self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("time.png", "profile.png"):
        (tmp_path / name).write_bytes(PNG + name.encode())
    return tmp_path


def test_markdown() -> None:
    assert (
        to_markdown(DOCUMENT)
        == r"""# Which &lt;b>?

Measured by `mnist-amp compare`.

- Use &lt;b> & co
- or \*not\*

## Memory | MB

```mermaid
pie showData title A step, in percent
    "forward" : 75.0
    "the 'rest'" : 25.0
```

| name | MB |
|---|---|
| a\|b | 1.50 |
| `c\|d` | - |

## Charts

These files are beside this report; `report.html` holds them all in one file.

![Time & more](time.png)
"""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size of val_accuracy", "batch_size of val_accuracy"),
        ("__init__ of _hidden", r"\_\_init\_\_ of \_hidden"),
        ("`code` ~~no~~ $x$", r"\`code\` \~\~no\~\~ \$x\$"),
        ("[a](http://b)", r"[a]\(http://b)"),
        ("&lt; is <", "&amp;lt; is &lt;"),
        (r"C:\*", r"C:\\\*"),
        ("one\n\n# two", "one # two"),  # an error of several lines stays in its cell
        ("# one", r"\# one"),
        ("- one", r"\- one"),
        ("1. one", r"1\. one"),
        ("> one", r"\> one"),
        ("-1.5", "-1.5"),
    ],
)
def test_text_is_no_markup(text: str, expected: str) -> None:
    assert to_markdown(Document("t", [Text(text)])) == f"# t\n\n{expected}\n"


def test_code_may_contain_backticks() -> None:
    assert to_markdown(Document("t", [Text(Code("a`b``c"))])) == "# t\n\n``` a`b``c ```\n"


@pytest.mark.parametrize("count", [20, 21])
def test_a_table_of_more_than_20_rows_is_collapsed(count: int, tmp_path: Path) -> None:
    table = Table([("name",), *[(str(index),) for index in range(count)]], "Rows <b>")
    text, page = to_markdown(Document("t", [table])), Page(to_html(Document("t", [table]), tmp_path))
    start = "<details>\n<summary>Rows &lt;b&gt;, 21 rows</summary>\n\n| name |\n|---|\n| 0 |\n"
    assert text.startswith(f"# t\n\n{start}") == (count == 21)
    assert text.endswith("| 20 |\n\n</details>\n") == (count == 21)
    assert ("details" in dict(page.tags)) == ("Rows <b>, 21 rows" in page.texts) == (count == 21)


def test_html_has_all_texts_as_they_are(folder: Path) -> None:
    page = Page(to_html(DOCUMENT, folder))
    assert page.texts == [
        *("Which <b>?", "Which <b>?", "Measured by ", "mnist-amp compare", ".", "Use <b> & co", "or *not*"),
        *("Time & more", "Memory | MB", "A step, in percent", "name", "MB", "a|b", "1.50", "c|d", "-"),
    ]
    assert "b" not in dict(page.tags)


def test_html_holds_the_charts_and_refers_to_nothing_else(folder: Path) -> None:
    text = to_html(DOCUMENT, folder)
    page = Page(text)
    assert [(image["src"], image["alt"]) for image in page.attributes("img")] == [
        (f"data:image/png;base64,{base64.b64encode(PNG + name).decode()}", title)
        for name, title in ((b"time.png", "Time & more"), (b"profile.png", "A step, in percent"))
    ]
    assert not any("href" in attributes for _, attributes in page.tags)
    assert not {"script", "link", "iframe"} & set(dict(page.tags))
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in [
        attributes.get("content") for attributes in page.attributes("meta")
    ]


def test_html_follows_the_colours_of_the_reader_and_scrolls_wide_tables(folder: Path) -> None:
    text = to_html(DOCUMENT, folder)
    assert "@media (prefers-color-scheme: dark)" in text
    assert '<div class="scroll" tabindex="0">\n<table>' in text


def test_columns_of_numbers_are_aligned_right() -> None:
    rows: list[tuple[Inline, ...]] = [("name", "MB", "share"), ("1", "1,024.5", "5.0%"), ("a", "-", "-")]
    page = Page(to_html(Document("t", [Table(rows)]), Path()))
    assert [cell.get("class") for cell in page.attributes("td")] == [None, "number", "number"] * 2


def test_a_missing_chart_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        to_html(DOCUMENT, tmp_path)


def test_files_of_a_report(tmp_path: Path) -> None:
    report = Document("t", [Chart("Loss", "loss.png")])
    write_report(report, {"loss.png": lambda: new_figure(1, 1)}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "report.html", "report.md"]
    (image,) = Page((tmp_path / "report.html").read_text(encoding="utf-8")).attributes("img")
    png = (tmp_path / "loss.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == to_markdown(report)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_report(Document("t", []), {}, tmp_path / "file")


@pytest.mark.parametrize("module", [document, report_files])
def test_the_examples_of_the_docstrings(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert (results.failed, results.attempted > 0) == (0, True)
