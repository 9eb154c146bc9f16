"""All that waits for a GPU, in one command: tests, speed, precisions, accuracy. The most important comes first.

    python benchmarks/gpu.py --check
    python benchmarks/gpu.py --minutes 9

The first says in seconds whether there is a CUDA device and whether all packages are there. The second runs the stages
that fit into 9 minutes, each in a process of its own. The same command again continues with the stages that are left,
and repeats those that failed; a comparison that was stopped is resumed. The results are saved at once to docs/results,
with the name of the device in their names, and the logs and the state to build/gpu. At the end it prints what each
stage did, and which targets were missed.

It needs no network and no installed mnist-amp, but the packages that pyproject.toml depends on, and pytest and
hypothesis. ONNX is not needed. On a machine without an index for pip, `--check` names the wheels to bring along;
those of `jsonargparse[signatures]` are jsonargparse, docstring-parser and typeshed-client.

    python benchmarks/gpu.py --dry_run

runs all stages on a CPU with little work, in a few minutes, and saves the results in a temporary folder.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from gpu_targets import shortfalls
from machine import DEVICE, MACHINE, RESULTS, device
from mnist_amp.reporting.tables import markdown

ROOT = Path(__file__).parents[1]
FOR_TESTS = ("pytest", "hypothesis")
LONGEST = 9.0  # minutes of a stage
LEAST = 60.0  # seconds that a stage gets which keeps its measurements when it is stopped
LOG_LINES = 20  # of a stage that failed, the last ones
GRACE = 10.0  # seconds between the request to end and the end by force
COMPARE = "--axes '{network.hidden_dim: [128, 2048], data.batch_size: [64, 512]}' --rounds 3"
DRY_COMPARE = "--precisions [32-true,bf16-mixed] --axes '{data.batch_size: []}' --rounds 1 --seeds 1 --seconds 0.01"
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
# settings of the fits of a dry run
FEW_BATCHES = {
    "MNIST_AMP_TRAINER__LIMIT_TRAIN_BATCHES": "8",
    "MNIST_AMP_TRAINER__LIMIT_VAL_BATCHES": "2",
    "MNIST_AMP_TRAINER__MAX_EPOCHS": "1",
}


@dataclass(frozen=True)
class Stage:
    """A program of benchmarks/.

    Attributes:
        name: of the stage.
        seconds: about how long it takes on an H100; with less time left it is not begun.
        program: the file and its options.
        dry: the same for a dry run.
        keeps: whether it keeps its measurements in `--folder` when it is stopped, so that it can be resumed.
        dry_settings: of the fits of a dry run. `speed.py` needs complete epochs, because it compares accuracies.
    """

    name: str
    seconds: float
    program: str
    dry: str
    keeps: bool = False
    dry_settings: Mapping[str, str] = field(default_factory=lambda: FEW_BATCHES)


STAGES = (
    Stage("tests", 240, "cuda_tests.py", "cuda_tests.py --files tests/test_conftest.py"),
    Stage(
        "speed",
        400,
        "speed.py --cases graphs --rounds 2",
        "speed.py --cases graphs --rounds 1 --epochs 1",
        dry_settings={},
    ),
    Stage(
        "compare",
        420,
        f"precision.py --only compare --compare {shlex.quote(COMPARE)}",
        f"precision.py --only compare --compare {shlex.quote(DRY_COMPARE)}",
        keeps=True,
    ),
    Stage(
        "networks",
        450,
        "crossover.py --networks WideMLP CNN ViT --batch_sizes 64 1024 --rounds 2",
        "crossover.py --networks SimpleNN --batch_sizes 64 --rounds 1",
        keeps=True,
    ),
    Stage(
        "profile",
        90,
        "precision.py --only profile",
        "precision.py --only profile --profile '--steps 3 --warmup 1' --late 5",
    ),
    Stage("accuracy", 300, "accuracy.py --recipes default float32", "accuracy.py --recipes default --seeds 0"),
    Stage("ratio", 240, "precision.py --only ratio --rounds 3", "precision.py --only ratio --rounds 1 --settings 1"),
    Stage("modules", 360, "own_modules.py --rounds 3", "own_modules.py --modules LitCNN --rounds 1 --seconds 0.01"),
)


def main() -> None:
    args = parsed()
    if args.check:
        sys.exit(check())
    if DEVICE == "cpu" and not args.dry_run:
        sys.exit("There is no CUDA device here. `--dry_run` tries the stages on a CPU.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stage that runs is ended as well
    with tempfile.TemporaryDirectory() as temporary:
        out, results = (Path(temporary), Path(temporary, "results")) if args.dry_run else (args.out, args.results)
        runner = Runner(out.absolute() / MACHINE, results.absolute(), args.dry_run)
        stages = [stage for stage in STAGES if stage.name in args.only]
        failed = runner.run(stages, 60 * args.minutes, args.again)
        print(summary(stages, runner.state), *shortfalls(runner.results, MACHINE), sep="\n", flush=True)
    sys.exit(1 if failed else 0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [stage.name for stage in STAGES]
    of = f"of {', '.join(names)}"
    parser.add_argument("--check", action="store_true", help="only look for the device and the packages")
    parser.add_argument("--dry_run", action="store_true", help="run the stages on a CPU, with little work")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STAGE", help=of)
    parser.add_argument("--again", action="store_true", help="run stages that are done once more")
    parser.add_argument("--minutes", type=float, default=LONGEST, help="the time of this call; other stages are left")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of the state and the logs")
    return parser.parse_args()


class Runner:
    """Runs stages one after the other, and keeps what became of them in `state.json`.

    Args:
        folder: of the state, the logs, and the runs that can be resumed.
        results: of the results.
        is_dry: whether to run them on a CPU with little work.

    Attributes:
        state: the outcome and the seconds of each stage that has run: `done`, `failed` or `stopped`.
    """

    def __init__(self, folder: Path, results: Path, is_dry: bool) -> None:
        self.folder, self.results, self.is_dry = folder, results, is_dry
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "state.json"
        self.state: dict[str, dict[str, Any]] = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def run(self, stages: Sequence[Stage], seconds: float, again: bool = False) -> list[str]:
        """Run the stages for which there is time, and return the names of those that failed.

        Args:
            stages: the most important first; those that failed before come last.
            seconds: the time of this call.
            again: whether to run those that are done.
        """
        end, failed = time.monotonic() + seconds, []
        for stage in sorted(stages, key=lambda stage: self.outcome(stage) == "failed"):
            left = 60 * LONGEST if self.is_dry else min(end - time.monotonic(), 60 * LONGEST)
            if self.outcome(stage) == "done" and not again:
                continue
            if left < (LEAST if stage.keeps else stage.seconds) and not self.is_dry:
                print(f"{stage.name}: left for the next call, because {left:.0f} s are too few", flush=True)
            elif self.run_stage(stage, left) == "failed":
                failed.append(stage.name)
        return failed

    def outcome(self, stage: Stage) -> str | None:
        return self.state.get(stage.name, {}).get("outcome")

    def run_stage(self, stage: Stage, limit: float) -> str:
        """Run a stage for some seconds at most, save its outcome, and return it."""
        if self.outcome(stage) != "stopped":
            shutil.rmtree(self.folder / stage.name, ignore_errors=True)
        print(f"{stage.name}: begins, {limit:.0f} s at most", flush=True)
        started = time.monotonic()
        settings = {**WITHOUT_GPU, **stage.dry_settings} if self.is_dry else {}
        outcome = self.ended(self.program(stage), settings, self.folder / f"{stage.name}.log", limit)
        self.state[stage.name] = {"outcome": outcome, "seconds": round(time.monotonic() - started, 1)}
        self.path.write_text(json.dumps(self.state, indent=1) + "\n")
        shutil.rmtree(self.folder / stage.name / "data", ignore_errors=True)  # a resumed stage unpacks it again
        print(f"{stage.name}: {outcome} after {self.state[stage.name]['seconds']:.0f} s", flush=True)
        if outcome == "failed":
            print(*(self.folder / f"{stage.name}.log").read_text().splitlines()[-LOG_LINES:], sep="\n", flush=True)
        return outcome

    def program(self, stage: Stage) -> list[str]:
        script, *options = shlex.split(stage.dry if self.is_dry else stage.program)
        options += ["--results", str(self.results)]
        options += ["--folder", str(self.folder / stage.name)] if stage.keeps else []
        return [sys.executable, str(ROOT / "benchmarks" / script), *options]

    def ended(self, program: list[str], settings: Mapping[str, str], log: Path, limit: float) -> str:
        """Run a program, with more variables, until it ends or until the limit, and return its outcome."""
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        env |= settings
        with log.open("w") as output:
            process = subprocess.Popen(
                program, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                return "failed" if process.wait(limit) else "done"
            except subprocess.TimeoutExpired:
                return "stopped"
            finally:
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)


def summary(stages: Sequence[Stage], state: dict[str, dict[str, Any]]) -> str:
    """Return the table of stages. The next call runs those that are left, and those that were stopped or failed."""
    rows = [
        [stage.name, found.get("outcome", "left"), f"{found['seconds']:.0f}" if found else "-"]
        for stage in stages
        for found in [state.get(stage.name, {})]
    ]
    return f"\n{markdown([['stage', 'outcome', 'seconds'], *rows])}\n\nOn: {device()}."


def check() -> int:
    """Print whether there is a CUDA device and whether all packages are there; return the exit status."""
    print(f"Python {platform.python_version()}, torch {torch.__version__} for CUDA {torch.version.cuda}: {device()}")
    lacking = list(missing())
    for requirement in lacking:
        print(f"missing: {requirement}")
    if lacking:
        print("To bring them along: pip download --no-deps --only-binary=:all: --python-version 3.12 NAME==VERSION")
    if DEVICE == "cpu":
        print("missing: a CUDA device")
    else:
        replay()
        print("a CUDA graph was captured and replayed")
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            print(f"left out: {name} is missing, so nothing is exported to ONNX")
    return 1 if lacking or DEVICE == "cpu" else 0


def replay() -> None:
    """Capture an addition as a CUDA graph and replay it, to find a device that can't before anything else runs."""
    values, graph = torch.zeros(8, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values += 1
    graph.replay()
    assert values.tolist() == [1.0] * 8  # a capture computes nothing


def missing() -> Iterator[str]:
    """Yield the packages that are missing, of those that mnist-amp and its tests need, and what they have instead."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    tests = [text for text in project["optional-dependencies"]["dev"] if Requirement(text).name in FOR_TESTS]
    for requirement in map(Requirement, [*project["dependencies"], *tests]):
        yield from _missing(requirement)
        for extra in requirement.extras:
            for text in requires(requirement.name) or []:
                needed = Requirement(text)
                if needed.marker and needed.marker.evaluate({"extra": extra}) and needed.name != requirement.name:
                    yield from _missing(needed)


def _missing(requirement: Requirement) -> Iterator[str]:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        yield str(requirement)
        return
    if not requirement.specifier.contains(found, prereleases=True):
        yield f"{requirement}; found {found}"


if __name__ == "__main__":
    main()
