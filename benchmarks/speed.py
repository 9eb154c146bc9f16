"""Speed of `mnist-amp fit` on the guide's task, compared with other programs and with lower bounds.

    python benchmarks/speed.py

Runs each contender in its own process, in interleaved rounds with a seed each, on the same data: the guide's listing,
plain Lightning, `mnist-amp fit` with its defaults (in a terminal, so with its progress bar), the same with `fast.yaml`
and with `--compile`, and two hand-written loops in processes without Lightning, which are lower bounds. The case
`ladder` shows the effect of each difference, `graphs` that of CUDA graphs. Saves all runs to
docs/results/speed-MACHINE.json, where MACHINE is cpu, cpu-bf16 (with instructions for bfloat16) or the name of a GPU,
the tables beside it, and the targets to targets.md.

On a CUDA GPU they train for 20 epochs, because the time of `mnist-amp fit` includes its capture of CUDA graphs, and
that of the hand-written loop does not.
"""

import argparse
import json
import os
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import accuracy
import contenders
import targets
from machine import DEVICE, HALF, MACHINE, RESULTS, environment
from mnist_amp.data import mnist
from mnist_amp.wording import counted

BOUNDS = ("bound", "compiled")
OURS = ("fit", "fast", "compile")
PEERS = ("guide", "lightning", *OURS, *(BOUNDS if DEVICE == "cpu" else ["bound"]))
NARROW: dict[str, Any] = {"hidden_dim": 128, "batch_size": 64}
CASES: dict[str, dict[str, Any]] = {
    "fp32": {**NARROW, "precision": "32-true", "contenders": PEERS},
    "mixed": {**NARROW, "precision": HALF, "contenders": PEERS},
    "wide": {"hidden_dim": 2048, "batch_size": 512, "precision": HALF, "contenders": ("fit", "fast", "bound")},
    "ladder": {
        **NARROW,
        "precision": "32-true",
        "contenders": ("lightning", "memory", "quiet", "single", "fit", "fast", "bound"),
    },
    "graphs": {**NARROW, "precision": HALF, "contenders": ("guide", "single", "fit", "fast", "bound")},
}
NAMES = {
    "guide": "the guide's listing",
    "lightning": "plain Lightning: `DataLoader`, transforms, `self.log` in each step",
    "memory": "plain Lightning, with batches from memory",
    "quiet": "the same, without logs in a step and without a progress bar",
    "single": "`mnist-amp fit --model.steps_per_execution 1`",
    "fit": "`mnist-amp fit`, with logs, checkpoints and progress bar",
    "fast": "`mnist-amp fit --config configs/fast.yaml`: 50 steps per execution",
    "compile": "`mnist-amp fit --compile`, compiled before",
    "bound": "hand-written loop (lower bound)",
    "compiled": "the same, with the step compiled before (lower bound)",
    "floor": "hand-written loop in a process with Lightning (no lower bound)",  # in older results
}
OPTIONS = {
    "single": ["--model.steps_per_execution=1"],
    "fit": [],
    "fast": ["--config=configs/fast.yaml"],
    "compile": ["--compile"],
}
DEFAULT = [name for name in CASES if DEVICE == "cuda" or name != "graphs"]
POINTS = 0.01  # allowed difference of accuracies; more if they spread more over seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20 if DEVICE == "cuda" else 2)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"speed-{MACHINE}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in args.cases:
        for runs in measure(CASES[name], args.rounds, args.epochs):  # saved after each round
            record[name] = {
                **{key: CASES[name][key] for key in ("hidden_dim", "batch_size", "precision")},
                "epochs": args.epochs,
                **environment(),
                "command": f"python benchmarks/speed.py --cases {name} --rounds {args.rounds} --epochs {args.epochs}",
                "runs": runs,
            }
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text("\n".join(map(table, record.values())), encoding="utf-8")
            targets.write(args.results)
        print(table(record[name]), flush=True)
        check_accuracies(record[name]["runs"])


def measure(case: dict[str, Any], rounds: int, epochs: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the runs after each round."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder, "data"))
        if "compile" in case["contenders"]:
            run("compile", case, 0, 1, Path(folder))  # so that the others find the compiled step
        for seed in range(rounds):
            for name in case["contenders"]:
                runs.append({"contender": name, "seed": seed, **run(name, case, seed, epochs, Path(folder))})
                print(f"round {seed + 1} of {rounds}, {NAMES[name]}: {runs[-1]['seconds']:.2f} s", flush=True)
            yield runs


def run(name: str, case: dict[str, Any], seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train once in a new process, and return seconds of training and of the process, peak memory, and accuracy."""
    logs = folder / "lightning_logs"
    program = command(name, case, seed, epochs, folder)
    environ = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    started = time.perf_counter()
    if name in ("single", "fit", "compile"):
        output, status, peak = in_terminal(program, folder, environ)
    else:
        output, status, peak = in_pipe(program, folder, environ)
    process_seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(program)} ended with exit status {status}:\n{output}")
    if DEVICE == "cuda" and name == "fast" and (reason := uncaptured(output)):
        sys.exit(f"{' '.join(program)} did not run as CUDA graphs: {reason}")
    if name in OPTIONS:
        # the summary rounds seconds to tenths, but not samples per second
        rate = last_number(r"([\d,]+) samples/s", output)
        device_bytes = last_number(r"([\d,]+) MB on the GPU", output) * 1e6 if DEVICE == "cuda" else None
        compiling = last_number(r"^compiled .* in ([\d.]+) s", output) if name == "compile" else None
        found: dict[str, Any] = {"seconds": 60_000 * epochs / rate, "compile_seconds": compiling}
        found["peak_device_bytes"] = device_bytes
        weights = max(logs.glob("version_*/model.pth"), key=lambda path: path.stat().st_mtime)
    else:
        found = json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))
        weights = folder / "model.pth"
    scored = accuracy.of_weights(weights, folder / "data")
    return {**found, "process_seconds": process_seconds, "peak_bytes": peak, "accuracy": scored}


def command(name: str, case: dict[str, Any], seed: int, epochs: int, folder: Path) -> list[str]:
    hidden_dim, batch_size, precision = case["hidden_dim"], case["batch_size"], case["precision"]
    if name not in OPTIONS:
        options = {"hidden_dim": hidden_dim, "batch_size": batch_size, "precision": precision, "epochs": epochs}
        options |= {"seed": seed, "data_dir": folder / "data", "weights": folder / "model.pth"}
        return [sys.executable, contenders.__file__, name, *(f"--{key}={value}" for key, value in options.items())]
    options = {"network.hidden_dim": hidden_dim, "data.batch_size": batch_size, "data.data_dir": folder / "data"}
    options |= {"trainer.precision": precision, "trainer.max_epochs": epochs, "seed_everything": seed}
    program = [sys.executable, "-m", "mnist_amp", "fit", "--config=configs/guide.yaml", *OPTIONS[name]]
    return [*program, *(f"--{key}={value}" for key, value in options.items())]


def uncaptured(output: str) -> str | None:
    """Return the last line that reports that the steps were not replayed as CUDA graphs; None if no line does."""
    found: list[str] = re.findall(r"^.*one after the other.*$", output, re.MULTILINE)
    return found[-1].strip() if found else None


def last_number(pattern: str, output: str) -> float:
    return float(re.findall(pattern, output, re.MULTILINE)[-1].replace(",", ""))


def in_pipe(program: list[str], folder: Path, env: Mapping[str, str] = os.environ) -> tuple[str, int, int]:
    """Run a program, and return its stdout and stderr, its exit status and its peak memory in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(program, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        return output.read(), os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def in_terminal(program: list[str], folder: Path, env: Mapping[str, str] = os.environ) -> tuple[str, int, int]:
    """Do the same in a terminal of 100 columns, as a user does."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        termios.tcsetwinsize(0, (24, 100))
        os.execve(program[0], program, env)
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:  # the other end was closed
        pass
    _, status, usage = os.wait4(pid, 0)
    return output.decode(), os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def check_accuracies(runs: list[dict[str, Any]]) -> None:
    """Exit with an error if an accuracy differs from that of the lower bound by more than noise."""
    scores = {name: [run["accuracy"] for run in runs if run["contender"] == name] for name in NAMES}
    reference = scores["bound"]
    for name, found in scores.items():
        spread = max((statistics.stdev(part) if len(part) > 1 else 0.0) for part in (found or [0.0], reference))
        if found and abs(statistics.mean(found) - statistics.mean(reference)) > max(POINTS, 3 * spread):
            means = f"{statistics.mean(found):.2%}, {NAMES['bound']}: {statistics.mean(reference):.2%}"
            sys.exit(f"{NAMES[name]}: {means}")


def table(record: dict[str, Any]) -> str:
    """Return the Markdown table of a case: medians, minima and maxima, ratios of medians."""
    runs = record["runs"]
    groups = {name: [run for run in runs if run["contender"] == name] for name in NAMES}
    groups = {name: group for name, group in groups.items() if group}
    medians = {name: statistics.median(run["seconds"] for run in group) for name, group in groups.items()}
    rows = [
        f"hidden_dim {record['hidden_dim']}, batch {record['batch_size']}, {record['precision']}, "
        f"{counted(record['epochs'], 'epoch')} of 60,000 images:",
        "",
        "| | training, s | min to max | µs per step | speed (guide = 1) | time (lower bound = 1) "
        "| complete process, s | peak memory | test accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    steps = record["epochs"] * -(-60_000 // record["batch_size"])
    for name, group in groups.items():
        seconds = [run["seconds"] for run in group]
        faster = f"{medians['guide'] / medians[name]:.1f}" if "guide" in medians else "-"
        slower = f"{medians[name] / medians['bound']:.2f}" if "bound" in medians else "-"
        rows.append(
            f"| {NAMES[name]} | {medians[name]:.2f} | {min(seconds):.2f} to {max(seconds):.2f} "
            f"| {medians[name] / steps * 1e6:,.0f} "
            f"| {faster} "
            f"| {slower} "
            f"| {statistics.median(run['process_seconds'] for run in group):.1f} "
            f"| {memory(group)} | {statistics.mean(run['accuracy'] for run in group):.2%} |"
        )
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    rounds = len(next(iter(groups.values())))
    where = f"Medians of {rounds} interleaved rounds on: {record['device']}, {stack}, {record['date']}."
    return "\n".join([*rows, "", *compiling(groups), where, f"`{record['command']}`", ""])


def compiling(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a line about the time of compiling, which is in no time of the table; nothing if nothing was compiled."""
    texts = []
    for name, group in groups.items():
        seconds = [run["compile_seconds"] for run in group if run.get("compile_seconds") is not None]
        if seconds:
            texts.append(f"{NAMES[name]}: {', '.join(f'{each:.1f}' for each in seconds)} s")
    return [f"Compiling, by round, from an empty cache on: {'; '.join(texts)}.", ""] if texts else []


def memory(group: list[dict[str, Any]]) -> str:
    text = f"{statistics.median(run['peak_bytes'] for run in group) / 1e6:,.0f} MB"
    if group[0]["peak_device_bytes"] is not None:
        text += f", {statistics.median(run['peak_device_bytes'] for run in group) / 1e6:,.0f} MB on the GPU"
    return text


if __name__ == "__main__":
    main()
