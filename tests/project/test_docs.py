"""The tests that docs/reliability.md names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reliability_names_tests_that_exist() -> None:
    named = re.findall(
        r"`(\w+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    )
    assert len(named) > 60
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
