"""A page and its translation share blocks, code, links, numbers, list items and rows of tables, section by section.

A page is cut into sections at its headings. Prose is free, except that it has the same numbers, the same `code`, and
links to the same pages. A number is one in digits: `twelve` is free, and `10,000` stays `10,000`.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import NamedTuple

BLOCK = re.compile(r"^<!-- docs/results/\S+ -->\n.*?^<!-- end -->$|^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LANGUAGES = re.compile(r"^(?:English \| \[简体中文\]\(\S+\)|\[English\]\(\S+\) \| 简体中文)$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
# not the 16 of bfloat16, nor the 18 of ResNet-18
NUMBER = r"(?<![A-Za-z_0-9.])(?<![A-Za-z]-)[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?:(?:\^-?|e)[0-9]+)?"
NAME = r"\b[A-Za-z]+-?[0-9]+\b"
UNITS = {"minutes": "分钟", "seconds": "秒", "epochs": "个 epoch", "times": "倍"}


class Section(NamedTuple):
    page: str
    line: int
    level: int
    heading: str
    blocks: list[str]
    prose: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line} ({self.heading})"


def differences(pages: tuple[str, str], texts: tuple[str, str], translated: dict[str, str]) -> list[str]:
    """Return what the second page must change to be a translation of the first.

    `translated` maps pages to their translations: a link to either is the same.
    """
    original, translation = (sections(page, text) for page, text in zip(pages, texts, strict=True))
    for ours, theirs in zip_longest(translation, original):
        if ours is None:
            return [f"{pages[1]}: no section for {theirs.place}"]
        if theirs is None or ours.level != theirs.level:
            wanted = "none" if theirs is None else f"one of level {theirs.level}, {theirs.place}"
            return [f"{ours.place}: a heading of level {ours.level}; the English page has {wanted}"]
    both = zip(original, translation, strict=True)
    return [line for theirs, ours in both for line in section_differences(theirs, ours, translated)]


def sections(page: str, text: str) -> list[Section]:
    """Cut a page at its headings, with its blocks apart from its prose."""
    text = LANGUAGES.sub("", text)
    prose = BLOCK.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)  # keeps the positions
    found = list(HEADING.finditer(prose))
    ends = [heading.start() for heading in found[1:]] + [len(text)]
    return [
        Section(
            page,
            text.count("\n", 0, heading.start()) + 1,
            len(heading[1]),
            heading[2],
            [block[0] for block in BLOCK.finditer(text) if heading.start() <= block.start() < end],
            prose[heading.start() : end],
        )
        for heading, end in zip(found, ends, strict=True)
    ]


def section_differences(theirs: Section, ours: Section, translated: dict[str, str]) -> Iterator[str]:
    """Yield how our section differs from theirs, the English one."""
    for number, pair in enumerate(zip_longest(theirs.blocks, ours.blocks, fillvalue=""), 1):
        if lines := first_difference(*map(without_folders, pair)):
            yield f"{ours.place}: block {number} has {lines[1]!r} for {lines[0]!r} of {theirs.place}"
    for kind, count in FACETS.items():
        wanted, found = count(theirs, translated), count(ours, translated)
        if missing := sorted((wanted - found).elements()):
            yield f"{ours.place}: {kind} of {theirs.place} are missing: {', '.join(missing)}"
        if other := sorted((found - wanted).elements()):
            yield f"{ours.place}: {kind} are not in {theirs.place}: {', '.join(other)}"
    if missing := sorted((quantities(theirs) - quantities(ours)).elements()):
        yield f"{ours.place}: units of {theirs.place} are missing: {', '.join(missing)}"


def first_difference(wanted: str, found: str) -> tuple[str, str] | None:
    """Return the first lines that differ."""
    lines = zip_longest(wanted.splitlines(), found.splitlines(), fillvalue="")
    return next((pair for pair in lines if pair[0] != pair[1]), None)


def without_folders(block: str) -> str:
    """Return a block with the links of its charts as if it stood in the repository's root."""
    return re.sub(r"(?<=\]\()(?:\.\./|docs/)*(?=results/)", "", block)


def code(section: Section, _: dict[str, str]) -> Counter[str]:
    return Counter(CODE.findall(section.prose))


def links(section: Section, translated: dict[str, str]) -> Counter[str]:
    """Return the targets; those in translated pages without the anchor, which is made of the heading."""
    originals = {translation: page for page, translation in translated.items()}
    targets: Counter[str] = Counter()
    for target in LINK.findall(section.prose):
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(section.page), path)) if path else section.page
        path = originals.get(path, path)
        targets[target if "://" in target else f"{path}#{anchor}" if anchor and path not in translated else path] += 1
    return targets


def numbers(section: Section, _: dict[str, str]) -> Counter[str]:
    return Counter(re.findall(NUMBER, plain(section)))


def names(section: Section, _: dict[str, str]) -> Counter[str]:
    """Return the names with digits, such as fp16 and H100, each once."""
    return Counter(set(re.findall(NAME, plain(section), re.ASCII)))


def items(section: Section, _: dict[str, str]) -> Counter[str]:
    kinds = {"- ": "list item", "| ": "table row"}
    return Counter(kinds[line[:2]] for line in section.prose.splitlines() if line[:2] in kinds)


FACETS: dict[str, Callable[[Section, dict[str, str]], Counter[str]]] = {
    "code spans": code,
    "links": links,
    "numbers": numbers,
    "names": names,
    "lines": items,
}


def quantities(section: Section) -> Counter[str]:
    """Return the numbers with the units of time in English; a translation can have more, such as `从 6 秒到 10 秒`."""
    text = plain(section)
    for unit, translation in UNITS.items():
        text = text.replace(translation, unit)
    return Counter(re.findall(rf"{NUMBER} (?:{'|'.join(UNITS)})", text))


def plain(section: Section) -> str:
    """Return the prose without code and the targets of links."""
    return LINK.sub("", CODE.sub("", section.prose))
