"""Start-up time of the command, compared with that of importing its dependencies.

    python benchmarks/startup.py

Runs each program of a list in its own process, in interleaved rounds, in an empty folder. Saves all times, and those of
the packages that take longest to import, to docs/results/startup.json, and the tables to startup.md. About 5 minutes on
2 CPU cores.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import targets
from machine import RESULTS, keep

IMPORT = "import mnist_amp.cli.lightning_cli"
MNIST_AMP = [sys.executable, "-m", "mnist_amp"]
CASES = {
    '`python -c "pass"`': [sys.executable, "-c", "pass"],
    '`python -c "import torch"`': [sys.executable, "-c", "import torch"],
    '`python -c "import lightning.pytorch"`': [sys.executable, "-c", "import lightning.pytorch"],
    '`python -c "import lightning.pytorch, torchvision"`': [
        sys.executable,
        "-c",
        "import lightning.pytorch, torchvision",
    ],
    "`mnist-amp --help`": [*MNIST_AMP, "--help"],
    "`mnist-amp --version`": [*MNIST_AMP, "--version"],
    "an unknown command": [*MNIST_AMP, "train"],
    "a config file that is missing": [*MNIST_AMP, "fit", "--config=missing.yaml"],
    "an unknown option": [*MNIST_AMP, "fit", "--trainer.epochs=3"],
    "`mnist-amp fit --help`": [*MNIST_AMP, "fit", "--help"],
    "`mnist-amp fit --print_config`": [*MNIST_AMP, "fit", "--print_config"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name, program in CASES.items():
                started = time.perf_counter()
                subprocess.run(program, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    command = f"startup.py --rounds {args.rounds}"
    keep(args.results / "startup.json", command, table, seconds=seconds, imports=imports())
    targets.write(args.results)


def imports() -> dict[str, float]:
    """Return the seconds of importing the command, by top-level package; each without the packages that it imports."""
    program = [sys.executable, "-X", "importtime", "-c", IMPORT]
    return self_times(subprocess.run(program, check=True, capture_output=True, text=True).stderr)


def self_times(report: str) -> dict[str, float]:
    """Sum up a report of `-X importtime` in seconds: the 6 longest, and the rest."""
    sums: dict[str, float] = {}
    for microseconds, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([^.\s]+)", report, re.MULTILINE):
        sums[name] = sums.get(name, 0.0) + int(microseconds) / 1e6
    largest = sorted(sums, key=lambda name: -sums[name])[:6]
    rest = sum(seconds for name, seconds in sums.items() if name not in largest)
    return {**{name: sums[name] for name in largest}, "the rest": rest}


def table(record: dict[str, Any]) -> str:
    """Return a Markdown table: medians, and their ratio to that of importing torch."""
    medians = {name: statistics.median(times) for name, times in record["seconds"].items()}
    torch = medians['`python -c "import torch"`']
    rows = [f"| {name} | {median:.2f} | {median / torch:.2f} |" for name, median in medians.items()]
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    rounds = len(record["seconds"]["`mnist-amp --help`"])
    where = f"Medians of {rounds} interleaved rounds on: {record['device']}, {stack}, {record['date']}."
    lines = ["| | seconds | times `import torch` |", "|---|---|---|", *rows, "", where, ""]
    return "\n".join(lines) + (imports_table(record["imports"]) if "imports" in record else "")


def imports_table(seconds: dict[str, float]) -> str:
    rows = [f"| {name if name == 'the rest' else f'`{name}`'} | {value:.2f} |" for name, value in seconds.items()]
    head = [
        "",
        '| `python -X importtime -c "import mnist_amp.cli.lightning_cli"`, by package | its own seconds |',
        "|---|---|",
    ]
    return "\n".join([*head, *rows, f"| all | {sum(seconds.values()):.2f} |", ""])


if __name__ == "__main__":
    main()
