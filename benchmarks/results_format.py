"""Write the tables of docs/results-format.md, from the docstrings of the records.

    python benchmarks/results_format.py

The page has the table of a record between `<!-- record: NAME -->` and `<!-- end -->`.
"""

import argparse
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from mnist_amp.measuring.compare_records import Comparison, Measurement, Setting
from mnist_amp.measuring.profile_records import ProfileResults
from mnist_amp.reporting.tables import markdown

PAGE = Path(__file__).parents[1] / "docs" / "results-format.md"
SHOWN = re.compile(r"(<!-- record: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ROOTS = (Comparison, ProfileResults)
DESCRIBED = (Setting, Measurement)  # in sentences of the page, because JSON has them in another form


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with the tables of its records.

    Raises:
        KeyError: the page names an unknown record.
    """
    known = records()
    return SHOWN.sub(lambda found: f"{found[1]}{table(known[found[2]])}\n{found[4]}", page)


def records() -> dict[str, type]:
    """Return the records of which results.json consists, by name."""
    found: dict[str, type] = {}
    waiting: list[type] = list(ROOTS)
    while waiting:
        record = waiting.pop(0)
        if record.__name__ not in found:
            found[record.__name__] = record
            waiting += [inner for hint in typing.get_type_hints(record).values() for inner in _records_in(hint)]
    return {name: record for name, record in found.items() if record not in DESCRIBED}


def _records_in(hint: object) -> Iterator[type]:
    """Yield the records in an annotation, such as `Spread` in `dict[str, Spread]`."""
    if inspect.isclass(hint) and hint.__module__.startswith("mnist_amp.measuring."):
        yield hint
    for inner in typing.get_args(hint):
        yield from _records_in(inner)


def table(record: type) -> str:
    """Return the fields of a record as a Markdown table.

    Raises:
        ValueError: a field is not described in the docstring, or a description has no field.
    """
    hints, texts = typing.get_type_hints(record), attributes(record)
    if list(texts) != list(hints):
        raise ValueError(f"the docstring of {record.__name__} describes {list(texts)}; its fields are {list(hints)}")
    rows = [[f"`{name}`", f"`{_shown(hint)}`", texts[name]] for name, hint in hints.items()]
    return markdown([["field", "type", "meaning"], *([cell.replace("|", r"\|") for cell in row] for row in rows)])


def attributes(record: type) -> dict[str, str]:
    """Return the descriptions of the fields in a docstring, by name."""
    section = inspect.getdoc(record) or ""
    _, _, section = section.partition("\nAttributes:\n")
    section = section.partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _shown(hint: object) -> str:
    """Return an annotation as it is written in the code."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", inspect.formatannotation(hint))


if __name__ == "__main__":
    main()
