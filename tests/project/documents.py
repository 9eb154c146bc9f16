"""The README and the pages of docs/, their Chinese versions, and the commands and snippets in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
# the Chinese versions of pages; test_chinese.py shows that their commands are those of the English pages
CHINESE = {
    "README.md": "README.zh-CN.md",
    **{f"docs/{path.name}": f"docs/zh/{path.name}" for path in sorted((ROOT / "docs" / "zh").glob("*.md"))},
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block in one of the languages, in the order of the page."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [(language, text) for _, language, text in found if language in languages]


def commands(page: str) -> list[str]:
    return [line for _, text in blocks(page, "bash") for line in text.splitlines()]


def all_commands() -> list[str]:
    return [line for page in PAGES for line in commands(page)]
