"""How many times as fast bf16-mixed is as 32-true for modules of other projects: by a bare loop, and by `compare`.

    python benchmarks/own_modules.py

For each module of tests/measuring/own_modules.py, a bare PyTorch loop (`benchmarks/own_loops.py`, without Lightning)
and the measurement of `mnist-amp compare` take turns, each in its own process. The results are saved as own-modules in
docs/results, by the kind of the machine. About 6 minutes on 2 CPU cores that do nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import MACHINE, RESULTS, keep
from mnist_amp.measuring.fit_measurements import measure_speed
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.precisions import PRECISIONS
from mnist_amp.reporting.tables import markdown
from precision import measured_here, place

ROOT = Path(__file__).parents[1]
BOTH = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Case:
    """A module of tests/measuring/own_modules.py, with sizes that give steps of some milliseconds or more.

    Attributes:
        module: its class.
        data: the class of its LightningDataModule.
        width: of the network.
        batch_size: examples in a batch.
        size: examples in an epoch.
    """

    module: str
    data: str
    width: int
    batch_size: int
    size: int


CASES = (
    Case("LitCNN", "Images", width=32, batch_size=64, size=4096),
    Case("LitTransformer", "Sentences", width=128, batch_size=64, size=4096),
    Case("LitAutoencoder", "Vectors", width=1024, batch_size=256, size=16384),
    Case("LitSlow", "SlowImages", width=8, batch_size=16, size=1024),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", default=[case.module for case in CASES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    cases = [case for case in CASES if case.module in args.modules]
    runs = measure(cases, args.rounds, args.seconds)
    command = f"own_modules.py --rounds {args.rounds}"
    keep(args.results / f"own-modules-{MACHINE}.json", command, table, **measured_here(), runs=runs)


def measure(cases: list[Case], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Return the seconds of a step, measured in both ways, for each round, case and precision."""
    runs = []
    for turn in range(rounds):
        for case in cases:
            for precision in BOTH:
                found = {**vars(case), "precision": precision, "round": turn}
                found["bare"] = by_hand(case, precision, seconds)
                found["compare"] = run_isolated(by_compare, case, precision, seconds)
                print(found, flush=True)
                runs.append(found)
    return runs


def by_hand(case: Case, precision: str, seconds: float) -> float:
    """Return the seconds of a step of the bare loop."""
    sizes = {"width": case.width, "batch_size": case.batch_size, "size": case.size}
    options = {"precision": precision, "seconds": seconds, **sizes}
    words = [f"--{name}={value}" for name, value in options.items()]
    program = [sys.executable, str(ROOT / "benchmarks" / "own_loops.py"), case.module, *words]
    found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    assert not found["lightning"]
    return float(found["seconds"])


def by_compare(case: Case, precision: str, seconds: float) -> float:
    """Return the seconds of a step, by the measurement of `compare`."""
    if str(ROOT) not in sys.path:  # in a process of its own
        sys.path.append(str(ROOT))
    own = {"model": f"tests.measuring.own_modules.{case.module}", "data": f"tests.measuring.own_modules.{case.data}"}
    sizes = {"model.width": case.width, "data.batch_size": case.batch_size, "data.size": case.size}
    measured, _ = measure_speed({}, {**PRECISIONS[precision], **own, **sizes}, seconds)
    return measured.seconds


def ratios(runs: list[dict[str, Any]], module: str, way: str) -> list[float]:
    """Return the speed of bf16-mixed (32-true = 1) in each round, measured in a way: `bare` or `compare`."""
    full, half = ([run for run in runs if (run["module"], run["precision"]) == (module, name)] for name in BOTH)
    return [slow[way] / fast[way] for slow, fast in zip(full, half, strict=True)]


def table(record: dict[str, Any]) -> str:
    head = ["module", "width, batch size", f"{BOTH[0]}, ms per step", "bare loop", "`mnist-amp compare`", "difference"]
    cases = {run["module"]: f"{run['width']}, {run['batch_size']}" for run in record["runs"]}
    lines = []
    for module, sizes in cases.items():
        found = [ratios(record["runs"], module, way) for way in ("bare", "compare")]
        times = [run["bare"] for run in record["runs"] if (run["module"], run["precision"]) == (module, BOTH[0])]
        speeds = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in found]
        bare, compared = map(statistics.median, found)
        difference = f"{compared / bare - 1:+.0%}"
        lines.append([module, sizes, f"{1e3 * statistics.median(times):.1f}", *speeds, difference])
    rounds = len(record["runs"]) // len(cases) // len(BOTH)
    return (
        f"Speed of {BOTH[1]} ({BOTH[0]} = 1), measured in two ways:\n\n{markdown([head, *lines])}\n\n"
        f"Medians (minimum to maximum) of {rounds} interleaved rounds on: {place(record)}.\n`{record['command']}`\n"
    )


if __name__ == "__main__":
    main()
