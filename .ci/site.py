"""MkDocs hooks: what is generated when the site is built, and the check that the site loads nothing from elsewhere.

A line `<!-- help: fit -->` becomes the options of that command, as `mnist-amp fit --help` prints them. A Mermaid pie,
which GitHub draws by itself, becomes an SVG, because Mermaid's script would have to be downloaded.
"""

import contextlib
import html
import io
import math
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from mnist_amp.__main__ import main

COLORS = ("#3f51b5", "#ff9800", "#4caf50", "#f44336", "#9c27b0", "#00bcd4", "#9e9e9e", "#ffc107")
PIE = re.compile(r"^```mermaid\npie showData title (.+)\n((?: +\"[^\"]+\" : [\d.]+\n)+)```$", re.MULTILINE)
HELP = re.compile(r"^<!-- help: (\w+)( without fit)? -->$", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = PIE.sub(lambda found: pie(found[1], re.findall(r'"(.+)" : ([\d.]+)', found[2])), markdown)
    return HELP.sub(lambda found: command_help(found[1], omit_fit=bool(found[2])), markdown)


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
        ends = (f"{math.sin(math.tau * at):.4f} {-math.cos(math.tau * at):.4f}" for at in (start, turn))
        path = "M0 0L{}A1 1 0 {:d} 1 {}Z".format(next(ends), turn - start > 0.5, next(ends))
        slices.append(f'<path d="{path}" fill="{color}"/>')
        legend.append(f'<li><i style="background:{color}"></i>{html.escape(name)}: {value} %</li>')
    drawing = f'<svg viewBox="-1 -1 2 2" role="img" aria-label="{html.escape(title)}">{"".join(slices)}</svg>'
    return f'<div class="pie">{drawing}<div><strong>{html.escape(title)}</strong><ul>{"".join(legend)}</ul></div></div>'


def command_help(command: str, omit_fit: bool) -> str:
    """Return the help of a command; on demand without the sections that `fit` has, word for word."""
    sections = help_sections(command)
    if omit_fit:
        known = help_sections("fit")
        sections = [section for section in sections[:1] + [part for part in sections[1:] if part not in known]]
    return "```text\n" + "\n\n".join(sections) + "\n```"


def help_sections(command: str) -> list[str]:
    os.environ["COLUMNS"] = "110"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue().strip().split("\n\n")
