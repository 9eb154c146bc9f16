"""The targets on a GPU, and which of them the saved results miss."""

import json
import statistics
from pathlib import Path
from typing import Any

from targets import TARGETS

POINTS = 0.002  # allowed difference of the mean accuracies; more if they spread more over seeds


def shortfalls(results: Path, machine: str) -> list[str]:
    """Return a line for each target that the saved results of a machine miss; what is not measured is not missed."""
    missed = failed_tests(read(results / f"gpu-tests-{machine}.json"))
    speed = read(results / f"speed-{machine}.json")
    missed += [
        line for target in TARGETS if target.on_gpu and target.file == "speed" for line in target.shortfalls(speed)
    ]
    missed += inaccurate(read(results / f"accuracy-{machine}.json").get("runs", []))
    return missed and ["", "What fell short:", *(f"- {line}" for line in missed)]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def failed_tests(record: dict[str, Any]) -> list[str]:
    failed = [test["test"] for test in record.get("tests", []) if test["outcome"] == "failed"]
    number = len(record.get("selected", [])) - len(record.get("tests", []))
    return [f"the test {name} fails" for name in failed] + ([f"{number} tests did not run"] if number else [])


def inaccurate(runs: list[dict[str, Any]]) -> list[str]:
    """Compare the mean accuracy in mixed precision with that in float32."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        scores.setdefault(run["precision"], []).append(run["accuracy"])
    full = scores.pop("32-true", [])
    lines = []
    for precision, found in scores.items() if full else ():
        spread = max(statistics.stdev(part) if len(part) > 1 else 0.0 for part in (found, full))
        difference = statistics.mean(full) - statistics.mean(found)
        if difference > max(POINTS, 3 * spread):
            lines.append(f"{precision} loses {100 * difference:.2f} percentage points of accuracy against 32-true")
    return lines
