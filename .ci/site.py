"""MkDocs hooks: the generated parts of the site, and the check that the site loads nothing from other machines.

- `<!-- help: fit -->` becomes the `--help` of a command; with `without fit`, only the sections that differ from fit's.
- `<!-- files -->` becomes a list of the package's files, with the first sentence of each docstring.
- A Mermaid pie, which GitHub draws by itself, becomes an SVG, because Mermaid's script would have to be downloaded.
- The pages of docs/zh name Chinese as their language. Browsers choose the font by it, and screen readers the voice.
"""

import ast
import contextlib
import html
import io
import math
import os
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from mnist_amp.__main__ import main

PACKAGE = Path(__file__).parents[1] / "src" / "mnist_amp"
COLORS = ("#7986cb", "#ffb74d", "#3f51b5", "#e57373", "#1a237e", "#4db6ac", "#9e9e9e", "#fff176")
PIE = re.compile(r"^```mermaid\npie showData title (.+)\n((?: +\"[^\"]+\" : [\d.]+\n)+)```$", re.MULTILINE)
HELP = re.compile(r"^<!-- help: (\w+)( without fit)? -->$", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = PIE.sub(lambda found: pie(found[1], re.findall(r'"(.+)" : ([\d.]+)', found[2])), markdown)
    markdown = HELP.sub(lambda found: command_help(found[1], omit_fit=bool(found[2])), markdown)
    return markdown.replace("<!-- files -->", package_files())


def on_post_page(output: str, page: Any, **_: Any) -> str:
    return (
        output.replace('<html lang="en"', '<html lang="zh-Hans"', 1) if page.file.src_uri.startswith("zh/") else output
    )


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site whose pages load a script, a style or an image from another machine."""
    for page in Path(config["site_dir"]).rglob("*.html"):
        for address in LOADED.findall(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page.name} loads {address}; the site must work offline.")


def pie(title: str, parts: list[tuple[str, str]]) -> str:
    """Return an SVG of shares, with a legend."""
    total, turn, slices, legend = sum(float(value) for _, value in parts), 0.0, [], []
    for (name, value), color in zip(parts, COLORS, strict=False):
        start, turn = turn, turn + float(value) / total
        first, last = (f"{math.sin(math.tau * at):.4f} {-math.cos(math.tau * at):.4f}" for at in (start, turn))
        slices.append(f'<path d="M0 0L{first}A1 1 0 {turn - start > 0.5:d} 1 {last}Z" fill="{color}"/>')
        legend.append(f'<li><i style="background:{color}"></i>{html.escape(name)}: {value} %</li>')
    drawing = f'<svg viewBox="-1 -1 2 2" role="img" aria-label="{html.escape(title)}">{"".join(slices)}</svg>'
    return f'<div class="pie">{drawing}<div><strong>{html.escape(title)}</strong><ul>{"".join(legend)}</ul></div></div>'


def command_help(command: str, omit_fit: bool) -> str:
    """Return the help of a command as Markdown, a heading for each section."""
    (_, description, *sections), known = help_sections(command), help_sections("fit")[2:] if omit_fit else []
    shown = [part for part in sections if part not in known]
    same = [part.partition(":\n")[0] for part in sections if part in known]
    parts = [description, *(_section(part) for part in shown)]
    if same:
        parts.append(f"These sections are the same as in [fit](#fit): {'; '.join(same)}.")
    return "\n\n".join(parts)


def help_sections(command: str) -> list[str]:
    """Return usage, description and the sections of options, as `--help` prints them."""
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue().replace(" \b", "").strip().split("\n\n")  # jsonargparse prints a backspace


def _section(part: str) -> str:
    title, _, options = part.partition(":\n")
    title = " ".join(title.split())
    return f"**{title[:1].upper()}{title[1:]}**\n\n```text\n{textwrap.dedent(options)}\n```"


def package_files() -> str:
    """Return, by room, a list of files and the first sentences of their docstrings."""
    rooms = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}
    return "\n\n".join(_room(room) for room in [PACKAGE, *sorted(rooms)])


def _room(room: Path) -> str:
    lines = [f'??? note "{room.relative_to(PACKAGE.parent)}/"', "", "    | file | contents |", "    |---|---|"]
    for path in sorted(room.glob("*.py")):
        if docstring := ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))):
            sentence = " ".join(docstring.partition("\n\n")[0].split())
            lines.append(f"    | `{path.name}` | {sentence} |")
    return "\n".join(lines)
