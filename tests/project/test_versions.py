"""The versions that the project is tested with are those that it declares."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    lowest = {
        requirement.name: Version(specifier.version)
        for requirement in map(Requirement, declared)
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    tested = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    assert {name: Version(text) for name, text in re.findall(r"^([\w-]+)==(.+)$", tested, re.MULTILINE)} == lowest
