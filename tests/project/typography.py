"""How Chinese is set: full-width punctuation, a space beside Latin letters and numbers, a paragraph in one line."""

import re
from collections.abc import Iterator

from tests.project.translations import BLOCK, CODE, LINK

HAN = r"\u4e00-\u9fff"
RULES = {
    "half-width punctuation beside a Chinese character": rf"""[{HAN}][,.;:!?()"']|[,.;:!?()"'][{HAN}]""",
    "no space between a Chinese character and a Latin one": rf"[{HAN}][A-Za-z0-9`]|[A-Za-z0-9`%][{HAN}]",
    "a space beside full-width punctuation": r" [，。；：！？、（）”]|[，。；：！？、（）“] (?!\|)",
    # which a browser shows as a space
    "a line break within a paragraph": rf"[{HAN}，。；：！？、（）“”]\n(?=[{HAN}A-Za-z0-9`“（\[])",
}


def faults(page: str, text: str) -> Iterator[str]:
    """Yield the place of each fault in the prose of a page, with what stands around it."""
    prose = BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text)
    prose = re.sub(r"!?\[([^\]]*)\]\(\)", r"\1", LINK.sub("", CODE.sub("`x`", prose)))
    for rule, pattern in RULES.items():
        for found in re.finditer(pattern, prose):
            around = prose[max(0, found.start() - 8) : found.end() + 8]
            yield f"{page}:{prose.count(chr(10), 0, found.start()) + 1}: {rule}: {around!r}"
