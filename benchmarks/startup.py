"""Start-up time of the command, compared with that of importing its dependencies, and the time of complete processes.

    python benchmarks/startup.py

Runs each program of a list in its own process, in interleaved rounds, in a folder that has MNIST. The complete
processes are one epoch of `mnist-amp fit` in a terminal, from the start of the process to its end, and the
`mnist-amp test` that follows it in `make fit`. They are compared with `import lightning.pytorch`, and the epoch of the
hand-written loop in a process of its own, without the start of that process.

Saves all times, and those of the packages that take longest to import, to docs/results/startup-MACHINE.json, see
`machine.py`, and the tables beside it. About 5 minutes on 2 CPU cores.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import targets
from machine import MACHINE, RESULTS, keep
from mnist_amp.data import mnist
from speed import in_terminal

IMPORT = "import mnist_amp.cli.lightning_cli"
MNIST_AMP = [sys.executable, "-m", "mnist_amp"]
LIGHTNING = '`python -c "import lightning.pytorch"`'
CASES = {
    '`python -c "pass"`': [sys.executable, "-c", "pass"],
    '`python -c "import torch"`': [sys.executable, "-c", "import torch"],
    LIGHTNING: [sys.executable, "-c", "import lightning.pytorch"],
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

BOUND = "bound"  # the contender that is the lower bound
EPOCH = ["--trainer.precision=32-true", "--trainer.max_epochs=1"]
# complete processes, from Enter to prompt; together they are `make fit`, the second time
WHOLE = {"fit": [*MNIST_AMP, "fit", *EPOCH], "test": [*MNIST_AMP, "test"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as for a user, whose second run finds the compiled modules
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    whole: dict[str, list[float]] = {name: [] for name in WHOLE}
    bound: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mnist.prepare(folder / "data")
        for _ in range(args.rounds):
            for case, program in CASES.items():
                seconds[case].append(in_pipe(program, folder))
            for case, program in WHOLE.items():
                whole[case].append(complete(program, folder))
            bound.append(bound_epoch(folder))
    command = f"startup.py --rounds {args.rounds}"
    path = args.results / f"startup-{MACHINE}.json"
    keep(path, command, table, seconds=seconds, whole=whole, bound=bound, imports=imports())
    targets.write(args.results)


def in_pipe(program: list[str], folder: Path) -> float:
    """Return the seconds of a program, whatever its exit status is."""
    started = time.perf_counter()
    subprocess.run(program, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def complete(program: list[str], folder: Path) -> float:
    """Return the seconds of a program in a terminal, which must succeed."""
    started = time.perf_counter()
    output, status, _ = in_terminal(program, folder)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(program)} ended with exit status {status}:\n{output}")
    return seconds


def bound_epoch(folder: Path) -> float:
    """Return the seconds of an epoch of the hand-written loop, without the start of its process."""
    program = [sys.executable, contenders.__file__, BOUND, "--epochs=1"]
    output = subprocess.run(program, cwd=folder, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["seconds"])


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
    """Return Markdown tables: medians, and their ratio to that of importing torch, or to the lower bound."""
    medians = {name: statistics.median(times) for name, times in record["seconds"].items()}
    torch = medians['`python -c "import torch"`']
    rows = [f"| {name} | {median:.2f} | {median / torch:.2f} |" for name, median in medians.items()]
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    rounds = len(record["seconds"]["`mnist-amp --help`"])
    where = f"Medians of {rounds} interleaved rounds on: {record['device']}, {stack}, {record['date']}."
    lines = ["| | seconds | times `import torch` |", "|---|---|---|", *rows, "", where, ""]
    whole = whole_table(record) if "whole" in record else ""
    return "\n".join(lines) + whole + (imports_table(record["imports"]) if "imports" in record else "")


def whole_table(record: dict[str, Any]) -> str:
    """Return the table of complete processes; its first row is what they are compared with."""
    both = [sum(times) for times in zip(*record["whole"].values(), strict=True)]
    rows = {
        f"{LIGHTNING} and an epoch of the hand-written loop": lower_bound(record),
        "`mnist-amp fit` of one epoch": statistics.median(record["whole"]["fit"]),
        "`make fit` of one epoch, the second time: this and `mnist-amp test`": statistics.median(both),
    }
    lines = [f"| {name} | {seconds:.2f} | {seconds / lower_bound(record):.2f} |" for name, seconds in rows.items()]
    return "\n".join(["", "| complete process | seconds | ratio |", "|---|---|---|", *lines, ""])


def lower_bound(record: dict[str, Any]) -> float:
    """Return the seconds of importing Lightning, and of an epoch of the hand-written loop."""
    return float(statistics.median(record["seconds"][LIGHTNING]) + statistics.median(record["bound"]))


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
