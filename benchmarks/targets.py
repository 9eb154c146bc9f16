"""The targets of speed, and what each machine reached, from the saved results.

    python benchmarks/targets.py

writes docs/results/targets.md from the results of `speed.py`, `startup.py` and `bigger_networks.py`.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from machine import RESULTS
from mnist_amp.reporting.tables import markdown

NARROW = ("fp32", "mixed")
ON_GPU = (*NARROW, "graphs")
NO_RESULTS = "-"


class Target(NamedTuple):
    """A target of a ratio of times.

    Attributes:
        case: what is compared.
        file: the first part of the name of the saved results.
        ratios: returns the ratios of saved results, by what they are of.
        limit: the ratio that is to be reached.
        is_speed: whether the ratio must be at least the limit; else at most.
        on_gpu: whether it is a target on GPUs, else on CPUs.
    """

    case: str
    file: str
    ratios: Callable[[dict[str, Any]], dict[str, float]]
    limit: float
    is_speed: bool = False
    on_gpu: bool = False

    def text(self) -> str:
        return f"{self.limit:g} times as fast" if self.is_speed else f"at most {self.limit:g} times its time"

    def missed(self, results: dict[str, Any]) -> dict[str, float]:
        """Return the ratios that miss the target."""
        found = self.ratios(results)
        return {of: each for of, each in found.items() if (each < self.limit if self.is_speed else each > self.limit)}

    def shortfalls(self, results: dict[str, Any]) -> list[str]:
        """Return a line for each ratio that misses the target."""
        missed = self.missed(results)
        return [f"{self.case}: {each:.2f} ({of}); the target is {self.text()}" for of, each in missed.items()]

    def reached(self, results: dict[str, Any]) -> str:
        """Return the ratios in words."""
        missed = self.missed(results)
        found = self.ratios(results)
        parts = [
            f"{each:.2f}{f' ({of})' if of else ''}{', missed' if of in missed else ''}" for of, each in found.items()
        ]
        return "; ".join(parts) or NO_RESULTS


def of_speed(cases: Sequence[str], over: str, under: str) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Return what compares the medians of two contenders of `speed.py`, by the precision of a case."""

    def ratios(results: dict[str, Any]) -> dict[str, float]:
        found = {}
        for case in (results[name] for name in cases if name in results):
            both = [[run["seconds"] for run in case["runs"] if run["contender"] == name] for name in (over, under)]
            if all(both):
                found[case["precision"]] = statistics.median(both[0]) / statistics.median(both[1])
        return found

    return ratios


def of_process(results: dict[str, Any]) -> dict[str, float]:
    """Compare a complete `mnist-amp fit` of an epoch with importing Lightning and an epoch of the lower bound."""
    imports = statistics.median(results["seconds"]['`python -c "import lightning.pytorch"`'])
    return {"": statistics.median(results["whole"]["fit"]) / (imports + statistics.median(results["bound"]))}


def of_help(results: dict[str, Any]) -> dict[str, float]:
    """Compare `mnist-amp --help` with `import torch`."""
    both = (results["seconds"][name] for name in ("`mnist-amp --help`", '`python -c "import torch"`'))
    return {"": statistics.median(next(both)) / statistics.median(next(both))}


def of_networks(results: dict[str, Any]) -> dict[str, float]:
    """Compare `mnist-amp fit` with a bare loop, by network and precision."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        found.setdefault(f"{run['network']}, {run['precision']}", []).append(run)
    medians = {
        of: [statistics.median(run[name]["seconds"] for run in runs) for name in ("fit", "bare")]
        for of, runs in found.items()
    }
    return {of: fit / bare for of, (fit, bare) in medians.items()}


TARGETS = (
    Target("`fit` vs. the guide's listing", "speed", of_speed(NARROW, "guide", "fit"), 9, is_speed=True),
    Target("`fit` vs. the lower bound", "speed", of_speed(NARROW, "fit", "bound"), 1.35),
    Target("`fast.yaml` vs. the lower bound", "speed", of_speed(NARROW, "fast", "bound"), 1.1),
    Target(
        "`fit --compile`, compiled before, vs. the compiled lower bound",
        "speed",
        of_speed(NARROW, "compile", "compiled"),
        1.25,
    ),
    Target("hidden_dim 2048, batch 512: `fit` vs. the lower bound", "speed", of_speed(["wide"], "fit", "bound"), 1.15),
    Target("CNN, ViT, ResNet-18: `fit` vs. a bare loop", "bigger-networks", of_networks, 1.05),
    Target("`fit` of an epoch, complete process, vs. importing Lightning, and the bound", "startup", of_process, 1.15),
    Target("`mnist-amp --help` vs. `import torch`", "startup", of_help, 1.5),
    Target("`fit` vs. the guide's listing", "speed", of_speed(ON_GPU, "guide", "fit"), 100, is_speed=True, on_gpu=True),
    Target("`fit` vs. the captured loop", "speed", of_speed(ON_GPU, "fit", "bound"), 1.5, on_gpu=True),
    Target("`fast.yaml` vs. the guide's listing", "speed", of_speed(ON_GPU, "guide", "fast"), 100, True, True),
    Target("`fast.yaml` vs. the captured loop", "speed", of_speed(ON_GPU, "fast", "bound"), 1.5, on_gpu=True),
)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write(RESULTS)


def write(folder: Path) -> None:
    """Write targets.md from the results that are saved in the same folder."""
    (folder / "targets.md").write_text(table(load(folder)), encoding="utf-8")


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the saved results by machine, and then by the first part of the file's name."""
    found: dict[str, dict[str, Any]] = {}
    for file in dict.fromkeys(target.file for target in TARGETS):
        for path in sorted(folder.glob(f"{file}-*.json")):
            results = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(path.stem.removeprefix(f"{file}-"), {})[file] = results
    return found


def table(machines: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of targets, with a column for each machine."""
    rows = [["", "target", *machines]]
    for target in TARGETS:
        cells = [
            target.reached(results[target.file])
            if target.file in results and is_gpu(name) == target.on_gpu
            else NO_RESULTS
            for name, results in machines.items()
        ]
        rows.append([f"{'on a GPU: ' if target.on_gpu else ''}{target.case}", target.text(), *cells])
    where = [f"- {name}: {device(results)}" for name, results in machines.items()]
    return "\n".join([markdown(rows), "", "Ratios of medians, from the tables of the benchmarks, on:", "", *where, ""])


def device(results: dict[str, Any]) -> str:
    """Return the device and the dates of the results of a machine."""
    records = [
        record for saved in results.values() for record in (saved.values() if "device" not in saved else [saved])
    ]
    return f"{records[0]['device']}, {', '.join(sorted({record['date'] for record in records}))}"


def is_gpu(machine: str) -> bool:
    return not machine.startswith("cpu")


if __name__ == "__main__":
    main()
