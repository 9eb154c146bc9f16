"""Run the tests that need a CUDA device, and save which of them passed.

    python benchmarks/cuda_tests.py

The result is saved after each test as gpu-tests in docs/results, by the kind of the machine, so it is kept even if a
test never ends. A test that fails runs a second time in a process of its own, because an error in one test can make the
device unusable for all later tests of a process. `benchmarks/gpu.py` runs this program.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machine import MACHINE, RESULTS, environment
from mnist_amp.reporting.tables import markdown
from mnist_amp.wording import counted

ROOT = Path(__file__).parents[1]
ERROR_LINES = 30  # of a failure, the last ones
ALONE = 8  # failed tests that run a second time, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", type=Path, help="default: all that have a test marked cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    files = args.files or files_with_cuda_tests(ROOT / "tests")
    path = args.results / f"gpu-tests-{MACHINE}.json"
    recorder = Recorder(path)
    options = ["-m", "cuda", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    status = pytest.main([*options, *map(str, files)], plugins=[recorder])
    failures = [test for test in recorder.tests if test["outcome"] == "failed"]
    for test in failures[:ALONE]:
        done = subprocess.run([sys.executable, "-m", "pytest", *options, test["test"]], cwd=ROOT, capture_output=True)
        test["alone"] = "failed" if done.returncode else "passed"
    recorder.save()
    # a status above 1 is an error of pytest's own, such as a file that can't be imported
    sys.exit(1 if failures or status > 1 or not recorder.is_complete else 0)


def files_with_cuda_tests(folder: Path) -> list[Path]:
    """Return the files of tests that need a CUDA device. The others may import packages that are missing there."""
    return sorted(path for path in folder.rglob("test_*.py") if "pytest.mark.cuda" in path.read_text(encoding="utf-8"))


class Recorder:
    """A plugin of pytest that saves the outcome of each test at once.

    Args:
        path: of the JSON file; the table is saved beside it.

    Attributes:
        selected: the names of all tests that are to run.
        tests: the name, outcome and seconds of each test that has run, and the error of one that failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.selected: list[str] = []
        self.tests: list[dict[str, Any]] = []

    @property
    def is_complete(self) -> bool:
        """Whether all tests have run, and there are some."""
        return {test["test"] for test in self.tests} == set(self.selected) != set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.selected = [item.nodeid for item in session.items]
        self.save()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":  # the setup or the teardown of a test
            return
        test: dict[str, Any] = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.outcome == "failed":
            test["error"] = "\n".join(report.longreprtext.splitlines()[-ERROR_LINES:])
        self.tests = [*(other for other in self.tests if other["test"] != report.nodeid), test]
        self.save()

    def save(self) -> None:
        """Save the outcomes so far."""
        record = environment() | {"command": "python benchmarks/cuda_tests.py"}
        record |= {"selected": self.selected, "tests": self.tests}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self.path.with_suffix(".md").write_text(table(record), encoding="utf-8")


def table(record: dict[str, Any]) -> str:
    """Return the numbers of tests by outcome, a row for each test, and the errors."""
    tests = record["tests"]
    numbers = {
        outcome: sum(test["outcome"] == outcome for test in tests) for outcome in ("passed", "failed", "skipped")
    }
    missing = len(record["selected"]) - len(tests)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in numbers.items())
    lines = [f"{counted(len(record['selected']), 'test')} for a CUDA device: {counts}, {missing} did not run.", ""]
    rows = [[f"`{test['test']}`", outcome_text(test), f"{test['seconds']:.1f}"] for test in tests]
    lines += [markdown([["test", "outcome", "seconds"], *rows]), ""] if rows else []
    for test in (test for test in tests if test["outcome"] == "failed"):
        lines += [f"`{test['test']}`:", "", "```text", test["error"], "```", ""]
    where = f"On: {record['device']}, torch {record['versions']['torch']}, {record['date']}. `{record['command']}`"
    return "\n".join([*lines, where, ""])


def outcome_text(test: dict[str, Any]) -> str:
    return f"{test['outcome']}; alone: {test['alone']}" if "alone" in test else str(test["outcome"])


if __name__ == "__main__":
    main()
