"""The targets on a GPU, and which of them the saved results miss."""

import json
import statistics
from pathlib import Path
from typing import Any

SPEED = "mixed"  # case of benchmarks/speed.py
FASTER = 100.0  # times as fast as the guide's listing
SLOWER = 1.5  # times the time of the captured loop, at most
POINTS = 0.002  # allowed difference of the mean accuracies; more if they spread more over seeds


def shortfalls(results: Path, machine: str) -> list[str]:
    """Return a line for each target that the saved results of a machine miss; what is not measured is not missed."""
    speed = read(results / f"speed-{machine}.json").get(SPEED)
    missed = failed_tests(read(results / f"gpu-tests-{machine}.json"))
    missed += [] if speed is None else slow(speed["runs"])
    missed += inaccurate(read(results / f"accuracy-{machine}.json").get("runs", []))
    return missed and ["", "What fell short:", *(f"- {line}" for line in missed)]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def failed_tests(record: dict[str, Any]) -> list[str]:
    failed = [test["test"] for test in record.get("tests", []) if test["outcome"] == "failed"]
    number = len(record.get("selected", [])) - len(record.get("tests", []))
    return [f"the test {name} fails" for name in failed] + ([f"{number} tests did not run"] if number else [])


def slow(runs: list[dict[str, Any]]) -> list[str]:
    """Compare the medians of `mnist-amp fit` with the guide's listing and with the captured loop."""
    guide, fit, bound = (
        statistics.median(run["seconds"] for run in runs if run["contender"] == name)
        for name in ("guide", "fit", "floor")
    )
    lines = []
    if guide / fit < FASTER:
        lines.append(f"fit is {guide / fit:.1f} times as fast as the guide's listing; the target is {FASTER:g}")
    if fit / bound > SLOWER:
        lines.append(f"fit takes {fit / bound:.2f} times the time of the captured loop; the target is {SLOWER:g}")
    return lines


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
