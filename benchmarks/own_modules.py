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
from pathlib import Path
from typing import Any

from mnist_amp.measuring.fit_measurements import measure_speed
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.precisions import PRECISIONS
from mnist_amp.reporting.tables import markdown
from precision import MACHINE
from speed import RESULTS, keep

ROOT = Path(__file__).parents[1]
BOTH = ("32-true", "bf16-mixed")
# data, width, batch size and examples of an epoch, by the class of the module: steps of 5 ms or more
CASES = {
    "LitCNN": ("Images", 32, 64, 4096),
    "LitTransformer": ("Sentences", 128, 64, 4096),
    "LitAutoencoder": ("Vectors", 1024, 256, 16384),
    "LitSlow": ("SlowImages", 8, 16, 1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    sys.path.append(str(ROOT))  # also that of the measured processes
    runs = []
    for turn in range(args.rounds):
        for module in args.modules:
            for precision in BOTH:
                found: dict[str, Any] = {"module": module, "precision": precision, "round": turn}
                found["bare"] = by_hand(module, precision, args.seconds)
                found["compare"] = run_isolated(by_compare, module, precision, args.seconds)
                print(found, flush=True)
                runs.append(found)
    keep(args.results / f"own-modules-{MACHINE}.json", f"own_modules.py --rounds {args.rounds}", table, runs=runs)


def by_hand(module: str, precision: str, seconds: float) -> float:
    """Return the seconds of a step of the bare loop."""
    _, width, batch_size, size = CASES[module]
    options = {"precision": precision, "width": width, "batch_size": batch_size, "size": size, "seconds": seconds}
    words = [f"--{name}={value}" for name, value in options.items()]
    program = [sys.executable, str(ROOT / "benchmarks" / "own_loops.py"), module, *words]
    found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    assert not found["lightning"]
    return float(found["seconds"])


def by_compare(module: str, precision: str, seconds: float) -> float:
    """Return the seconds of a step, by the measurement of `compare`."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    data, width, batch_size, size = CASES[module]
    own = {"model": f"tests.measuring.own_modules.{module}", "data": f"tests.measuring.own_modules.{data}"}
    sizes = {"model.width": width, "data.batch_size": batch_size, "data.size": size}
    measured, _ = measure_speed({}, {**PRECISIONS[precision], **own, **sizes}, seconds)
    return measured.seconds


def ratios(runs: list[dict[str, Any]], module: str) -> dict[str, float]:
    """Return the speed of bf16-mixed (32-true = 1), measured both ways: medians of the rounds."""
    full, half = ([run for run in runs if (run["module"], run["precision"]) == (module, name)] for name in BOTH)
    return {
        way: statistics.median(slow[way] / fast[way] for slow, fast in zip(full, half, strict=True))
        for way in ("bare", "compare")
    }


def table(record: dict[str, Any]) -> str:
    lines = [["module", "width, batch size", "ms per step", "bare loop", "`mnist-amp compare`", "difference"]]
    modules = list(dict.fromkeys(run["module"] for run in record["runs"]))
    for module in modules:
        found = ratios(record["runs"], module)
        times = [run["bare"] for run in record["runs"] if (run["module"], run["precision"]) == (module, BOTH[0])]
        _, width, batch_size, _ = CASES[module]
        lines.append(
            [
                module,
                f"{width}, {batch_size}",
                f"{1e3 * statistics.median(times):.1f}",
                *(f"{found[way]:.2f}" for way in ("bare", "compare")),
                f"{found['compare'] / found['bare'] - 1:+.0%}",
            ]
        )
    rounds = len(record["runs"]) // len(modules) // len(BOTH)
    where = f"{record['device']}, torch {record['versions']['torch']}, {record['date']}"
    return (
        f"Speed of {BOTH[1]} ({BOTH[0]} = 1), measured in two ways:\n\n{markdown(lines)}\n\n"
        f"Medians of {rounds} interleaved rounds on: {where}.\n`{record['command']}`\n"
    )


if __name__ == "__main__":
    main()
