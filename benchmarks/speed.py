"""Speed of `mnist-amp fit` on the guide's task, compared with other programs and with a lower bound.

    python benchmarks/speed.py

Runs each contender in its own process, in interleaved rounds with a seed each, on the same data: the guide's listing,
plain Lightning, `mnist-amp fit` with its defaults (in a terminal, so with its progress bar), the same with `fast.yaml`,
and the hand-written loop, which is the lower bound. The case `ladder` shows the effect of each difference. Saves all
runs to docs/results/speed-cpu.json (or speed-cuda.json), the tables beside it, and the targets to targets.md.

On a CUDA GPU they train for 20 epochs, because the time of `mnist-amp fit` includes its capture of CUDA graphs, and
that of the hand-written loop does not.
"""

import argparse
import datetime
import json
import os
import platform
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import contenders
from mnist_amp.data import mnist
from mnist_amp.training.precision import versions
from mnist_amp.wording import counted

RESULTS = Path(__file__).parents[1] / "docs" / "results"
HALF = "16-mixed" if torch.cuda.is_available() else "bf16-mixed"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OURS = ("fit", "fast", "floor")
PEERS = ("guide", "lightning", *OURS)
CASES: dict[str, dict[str, Any]] = {
    "fp32": {"hidden_dim": 128, "batch_size": 64, "precision": "32-true", "contenders": PEERS},
    "mixed": {"hidden_dim": 128, "batch_size": 64, "precision": HALF, "contenders": PEERS},
    "wide": {"hidden_dim": 2048, "batch_size": 512, "precision": HALF, "contenders": OURS},
    "ladder": {
        "hidden_dim": 128,
        "batch_size": 64,
        "precision": "32-true",
        "contenders": ("lightning", "memory", "quiet", *OURS),
    },
}
NAMES = {
    "guide": "the guide's listing",
    "lightning": "plain Lightning: `DataLoader`, transforms, `self.log` in each step",
    "memory": "plain Lightning, with batches from memory",
    "quiet": "the same, without logs in a step and without a progress bar",
    "fit": "`mnist-amp fit`, with logs, checkpoints and progress bar",
    "fast": "`mnist-amp fit --config configs/fast.yaml`: 50 steps per execution",
    "floor": "hand-written loop (lower bound)",
}
NOT_YET = "not yet measured: `python benchmarks/speed.py`"
POINTS = 0.01  # allowed difference of accuracies; more if they spread more over seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20 if DEVICE == "cuda" else 2)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"speed-{DEVICE}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in args.cases:
        record[name] = {
            **{key: CASES[name][key] for key in ("hidden_dim", "batch_size", "precision")},
            "epochs": args.epochs,
            "date": datetime.date.today().isoformat(),
            "device": device(),
            "versions": versions(),
            "command": f"python benchmarks/speed.py --cases {name} --rounds {args.rounds} --epochs {args.epochs}",
            "runs": measure(CASES[name], args.rounds, args.epochs),
        }
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text("\n".join(map(table, record.values())), encoding="utf-8")
        write_targets(args.results)
        print(table(record[name]), flush=True)
        check_accuracies(record[name]["runs"])


def measure(case: dict[str, Any], rounds: int, epochs: int) -> list[dict[str, Any]]:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        mnist.prepare(Path(folder, "data"))
        for seed in range(rounds):
            for name in case["contenders"]:
                runs.append({"contender": name, "seed": seed, **run(name, case, seed, epochs, Path(folder))})
                print(f"round {seed + 1} of {rounds}, {NAMES[name]}: {runs[-1]['seconds']:.2f} s", flush=True)
    return runs


def run(name: str, case: dict[str, Any], seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train once in a new process, and return seconds of training and of the process, peak memory, and accuracy."""
    logs = folder / "lightning_logs"
    ours = name in ("fit", "fast")
    program = command(name, case, seed, epochs, folder)
    started = time.perf_counter()
    output, status, peak = in_terminal(program, folder) if name == "fit" else in_pipe(program, folder)
    process_seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(program)} ended with exit status {status}:\n{output}")
    if DEVICE == "cuda" and (reason := uncaptured(output)):
        sys.exit(f"{' '.join(program)} did not run as CUDA graphs: {reason}")
    if ours:
        # the summary rounds seconds to tenths, but not samples per second
        rate = last_number(r"([\d,]+) samples/s", output)
        device_bytes = last_number(r"([\d,]+) MB on the GPU", output) * 1e6 if DEVICE == "cuda" else None
        found: dict[str, Any] = {"seconds": 60_000 * epochs / rate, "peak_device_bytes": device_bytes}
        weights = max(logs.glob("version_*/model.pth"), key=lambda path: path.stat().st_mtime)
    else:
        found = json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))
        weights = folder / "model.pth"
    accuracy = contenders.accuracy(weights, folder / "data")
    return {**found, "process_seconds": process_seconds, "peak_bytes": peak, "accuracy": accuracy}


def command(name: str, case: dict[str, Any], seed: int, epochs: int, folder: Path) -> list[str]:
    hidden_dim, batch_size, precision = case["hidden_dim"], case["batch_size"], case["precision"]
    if name not in ("fit", "fast"):
        options = {"hidden_dim": hidden_dim, "batch_size": batch_size, "precision": precision, "epochs": epochs}
        options |= {"seed": seed, "data_dir": folder / "data", "weights": folder / "model.pth"}
        return [sys.executable, contenders.__file__, name, *(f"--{key}={value}" for key, value in options.items())]
    options = {"network.hidden_dim": hidden_dim, "data.batch_size": batch_size, "data.data_dir": folder / "data"}
    options |= {"trainer.precision": precision, "trainer.max_epochs": epochs, "seed_everything": seed}
    configs = ["--config=configs/guide.yaml", *(["--config=configs/fast.yaml"] if name == "fast" else [])]
    program = [sys.executable, "-m", "mnist_amp", "fit"]
    return [*program, *configs, *(f"--{key}={value}" for key, value in options.items())]


def uncaptured(output: str) -> str | None:
    """Return the last line that reports that the steps were not replayed as CUDA graphs; None if no line does."""
    said: list[str] = re.findall(r"^.*one after the other.*$", output, re.MULTILINE)
    return said[-1].strip() if said else None


def last_number(pattern: str, output: str) -> float:
    return float(re.findall(pattern, output)[-1].replace(",", ""))


def in_pipe(program: list[str], folder: Path, env: Mapping[str, str] = os.environ) -> tuple[str, int, int]:
    """Run a program, and return its stdout and stderr, its exit status and its peak memory in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(program, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        return output.read(), os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def in_terminal(program: list[str], folder: Path) -> tuple[str, int, int]:
    """Do the same in a terminal of 100 columns, as a user does."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        termios.tcsetwinsize(0, (24, 100))
        os.execv(program[0], program)
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:  # the other end was closed
        pass
    _, status, usage = os.wait4(pid, 0)
    return output.decode(), os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def keep(path: Path, command: str, table: Callable[[dict[str, Any]], str], **results: Any) -> None:
    """Save results as JSON with their environment and command, and their table as Markdown; print the table."""
    record = {"date": datetime.date.today().isoformat(), "device": device(), "versions": versions()}
    record |= {"command": f"python benchmarks/{command}", **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(table(record))


def device() -> str:
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores, threads: {torch.get_num_threads()})"


def check_accuracies(runs: list[dict[str, Any]]) -> None:
    """Exit with an error if an accuracy differs from that of the hand-written loop by more than noise."""
    scores = {name: [run["accuracy"] for run in runs if run["contender"] == name] for name in NAMES}
    floor = scores["floor"]
    for name, found in scores.items():
        spread = max((statistics.stdev(part) if len(part) > 1 else 0.0) for part in (found or [0.0], floor))
        if found and abs(statistics.mean(found) - statistics.mean(floor)) > max(POINTS, 3 * spread):
            sys.exit(f"{NAMES[name]}: {statistics.mean(found):.2%}, {NAMES['floor']}: {statistics.mean(floor):.2%}")


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
        rows.append(
            f"| {NAMES[name]} | {medians[name]:.2f} | {min(seconds):.2f} to {max(seconds):.2f} "
            f"| {medians[name] / steps * 1e6:,.0f} "
            f"| {faster} "
            f"| {medians[name] / medians['floor']:.2f} "
            f"| {statistics.median(run['process_seconds'] for run in group):.1f} "
            f"| {memory(group)} | {statistics.mean(run['accuracy'] for run in group):.2%} |"
        )
    stack = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "lightning"))
    rounds = len(next(iter(groups.values())))
    where = f"Medians of {rounds} interleaved rounds on: {record['device']}, {stack}, {record['date']}."
    return "\n".join([*rows, "", where, f"`{record['command']}`", ""])


def write_targets(results: Path) -> None:
    """Write targets.md from the results that are saved in the same folder."""
    saved = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")}
    text = targets(saved.get("speed-cpu", {}), saved.get("speed-cuda", {}), saved.get("startup"))
    (results / "targets.md").write_text(text, encoding="utf-8")


def targets(cpu: dict[str, Any], cuda: dict[str, Any], startup: dict[str, Any] | None) -> str:
    """Return the Markdown table of targets and results, from the saved results of speed.py and startup.py."""
    narrow = ("fp32", "mixed")
    rows = [
        ("`fit` vs. the guide's listing", "6 times as fast", ratios(cpu, narrow, "guide", "fit")),
        (
            "`fit` vs. the hand-written loop",
            "at most 2.0 times its time",
            ratios(cpu, narrow, "fit", "floor"),
        ),
        ("`fast.yaml` vs. the guide's listing", "9 times as fast", ratios(cpu, narrow, "guide", "fast")),
        (
            "`fast.yaml` vs. the hand-written loop",
            "at most 1.35 times its time",
            ratios(cpu, narrow, "fast", "floor"),
        ),
        (
            "hidden_dim 2048, batch 512: `fit` vs. the hand-written loop",
            "at most 1.15 times its time",
            ratios(cpu, ("wide",), "fit", "floor"),
        ),
        (
            "on CUDA: `fast.yaml` vs. the guide's listing",
            "100 times as fast",
            ratios(cuda, narrow, "guide", "fast"),
        ),
        (
            "on CUDA: `fast.yaml` vs. the hand-written loop",
            "at most 1.5 times its time",
            ratios(cuda, narrow, "fast", "floor"),
        ),
        ("`mnist-amp --help` vs. `import torch`", "at most 1.5 times its time", help_ratio(startup)),
    ]
    devices = dict.fromkeys(case["device"] for record in (cpu, cuda) for case in record.values())
    where = f"Ratios of medians, from the tables of speed and start-up, on: {'; '.join(devices) or 'no device yet'}."
    lines = [f"| {case} | {target} | {reached} |" for case, target, reached in rows]
    return "\n".join(["| | target | reached |", "|---|---|---|", *lines, "", where, ""])


def ratios(record: dict[str, Any], cases: tuple[str, ...], over: str, under: str) -> str:
    found = []
    for case in (record[name] for name in cases if name in record):
        more, less = (
            statistics.median(run["seconds"] for run in case["runs"] if run["contender"] == name)
            for name in (over, under)
        )
        found.append(f"{more / less:.2f} in {case['precision']}")
    return ", ".join(found) or NOT_YET


def help_ratio(startup: dict[str, Any] | None) -> str:
    if startup is None:
        return "not yet measured: `python benchmarks/startup.py`"
    seconds = startup["seconds"]
    answer, torch_alone = (
        statistics.median(seconds[name]) for name in ("`mnist-amp --help`", '`python -c "import torch"`')
    )
    return f"{answer / torch_alone:.2f}"


def memory(group: list[dict[str, Any]]) -> str:
    text = f"{statistics.median(run['peak_bytes'] for run in group) / 1e6:,.0f} MB"
    if group[0]["peak_device_bytes"] is not None:
        text += f", {statistics.median(run['peak_device_bytes'] for run in group) / 1e6:,.0f} MB on the GPU"
    return text


if __name__ == "__main__":
    main()
