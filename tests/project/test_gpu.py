"""benchmarks/gpu.py and cuda_tests.py: stages of short programs, and outcomes and targets from literal records."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cuda_tests
import gpu
import gpu_targets
from gpu import Runner, Stage

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
GOOD = "import sys; print(*sys.argv[1:])"
BAD = "import sys; print('here'); sys.exit('why it failed')"
# starts a process, notes both, and does not end by itself
SLOW = """
import os, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(exist_ok=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
with (folder / "pids").open("a") as file:
    file.write(f"{child.pid}\\n")
time.sleep(100)
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Return a runner of the programs good.py, bad.py and slow.py."""
    (tmp_path / "benchmarks").mkdir()
    for name, text in (("good", GOOD), ("bad", BAD), ("slow", SLOW)):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    return Runner(tmp_path / "out", tmp_path / "results", is_dry=False)


def stage(name: str, seconds: float = 0.0, keeps: bool = False) -> Stage:
    return Stage(name, seconds, f"{name}.py --full", f"{name}.py --tiny", keeps)


def outcomes(runner: Runner) -> dict[str, str]:
    """Return the saved outcomes of stages, in the order in which they ended."""
    return {name: found["outcome"] for name, found in json.loads(runner.path.read_text()).items()}


def test_a_stage_that_fails_does_not_stop_the_others(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [stage("bad"), stage("good")]
    assert runner.run(stages, 60) == ["bad"]
    assert outcomes(runner) == {"bad": "failed", "good": "done"}
    assert "why it failed\n" in capsys.readouterr().out
    assert (runner.folder / "good.log").read_text() == f"--full --results {runner.results}\n"
    again = Runner(runner.folder, runner.results, is_dry=False)
    assert again.run(stages, 60) == ["bad"]
    assert "good" not in capsys.readouterr().out
    assert again.run(stages, 60, again=True) == ["bad"]
    printed = capsys.readouterr().out
    assert 0 <= printed.index("good: done") < printed.index("bad: failed")  # what failed before comes last


def test_a_dry_run_has_its_own_options(runner: Runner) -> None:
    runner.is_dry = True
    runner.run([stage("good", seconds=1000)], 0)  # it is bound by no time
    assert (runner.folder / "good.log").read_text() == f"--tiny --results {runner.results}\n"


def test_a_stage_without_enough_time_is_left(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run([stage("slow", seconds=240), stage("slow", keeps=True), stage("good")], 59.9) == []
    assert capsys.readouterr().out.splitlines()[:2] == [
        "slow: left for the next call, because 60 s are too few",
        "slow: left for the next call, because 60 s are too few",
    ]
    assert outcomes(runner) == {"good": "done"}


@pytest.mark.parametrize(("before", "kept"), [("stopped", True), ("failed", False), ("done", False)])
def test_a_stage_that_was_stopped_is_resumed(runner: Runner, before: str, kept: bool) -> None:
    runner.state["good"] = {"outcome": before, "seconds": 1.0}
    (runner.folder / "good").mkdir()
    runner.run([stage("good", keeps=True)], 100, again=True)
    assert (runner.folder / "good").exists() is kept
    words = (runner.folder / "good.log").read_text().split()
    assert words[-2:] == ["--folder", str(runner.folder / "good")]


def test_a_stage_that_takes_too_long_is_stopped(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run([stage("slow")], 0.1)
    assert outcomes(runner) == {"slow": "stopped"}
    assert capsys.readouterr().out.startswith("slow: begins, 0 s at most\nslow: stopped after ")


def test_a_stage_of_a_dry_run_that_is_stopped_has_failed(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.is_dry = True
    monkeypatch.setattr(gpu, "LONGEST", 0.001)
    assert runner.run([stage("slow")], 0) == ["slow"]


def test_a_program_is_ended_with_its_processes(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], start_new_session=True)
    noted = tmp_path / "pids"
    while not noted.is_file() or not noted.read_text().endswith("\n"):
        assert process.poll() is None
        time.sleep(0.01)
    gpu.end(process)
    assert process.poll() == -signal.SIGTERM
    deadline = time.monotonic() + 60
    while is_running(int(noted.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_summary() -> None:
    state = {"tests": {"outcome": "done", "seconds": 71.6}, "speed": {"outcome": "stopped", "seconds": 540.1}}
    assert gpu.summary(gpu.STAGES[:3], state).partition("\n\nOn: ")[0] == (
        "\n| stage | outcome | seconds |\n|---|---|---|\n| tests | done | 72 |\n| speed | stopped | 540 |\n"
        "| compare | left | - |"
    )


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(gpu.missing()) == []
    found = importlib.metadata.version

    def version(name: str) -> str:
        if name == "typeshed-client":  # one that jsonargparse[signatures] needs
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.10.0+cu130" if name == "torch" else found(name)

    monkeypatch.setattr(gpu, "version", version)
    old, absent = gpu.missing()
    assert old == "torch>=2.11; found 2.10.0+cu130"
    assert absent.startswith("typeshed-client>=")


def test_missed_targets(tmp_path: Path) -> None:
    def write(name: str, **record: Any) -> None:
        (tmp_path / f"{name}-nvidia-h200.json").write_text(json.dumps(record))

    assert gpu_targets.shortfalls(tmp_path, "nvidia-h200") == []
    seconds = {"guide": [90.0, 100.0, 110.0], "fit": [2.0, 1.0, 3.0], "fast": [1.0, 1.0, 1.0], "bound": [1.0, 1.0, 1.0]}
    runs = [{"contender": name, "seconds": value} for name, values in seconds.items() for value in values]
    write("speed", graphs={"precision": "16-mixed", "runs": runs})
    write("gpu-tests", selected=["a", "b", "c"], tests=[{"test": "a", "outcome": "failed"}])
    scores = {"32-true": [0.97, 0.971], "16-mixed": [0.967, 0.967], "bf16-mixed": [0.9691, 0.9700]}
    write("accuracy", runs=[{"precision": name, "accuracy": one} for name, found in scores.items() for one in found])
    assert gpu_targets.shortfalls(tmp_path, "nvidia-h200") == [
        "",
        "What fell short:",
        "- the test a fails",
        "- 2 tests did not run",
        "- `fit` vs. the guide's listing: 50.00 (16-mixed); the target is 100 times as fast",
        "- `fit` vs. the captured loop: 2.00 (16-mixed); the target is at most 1.5 times its time",
        "- 16-mixed loses 0.35 percentage points of accuracy against 32-true",
    ]


def test_outcomes_of_tests_are_saved(tmp_path: Path) -> None:
    """Run a file with tests of each outcome, as on a GPU: the marks of this project's conftest do not apply to it."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.cuda\ndef test_good(): pass\n\n"
        "@pytest.mark.cuda\ndef test_bad(): assert 1 == 2\n\n"
        "@pytest.mark.cuda\ndef test_skipped(): pytest.skip('so')\n\n"
        "def test_on_any_device(): assert False\n"
    )
    program = [sys.executable, cuda_tests.__file__, f"--results={tmp_path}", f"--files={tmp_path / 'test_some.py'}"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    (path,) = tmp_path.glob("gpu-tests-*.json")
    record = json.loads(path.read_text())
    assert [(test["test"].rpartition("::")[2], test["outcome"], test.get("alone")) for test in record["tests"]] == [
        ("test_good", "passed", None),
        ("test_bad", "failed", "failed"),
        ("test_skipped", "skipped", None),
    ]
    assert "E   assert 1 == 2" in record["tests"][1]["error"]
    written = path.with_suffix(".md").read_text()
    assert written.startswith("3 tests for a CUDA device: 1 passed, 1 failed, 1 skipped, 0 did not run.\n\n| test |")
    assert "::test_bad` | failed; alone: failed | " in written


def test_files_with_cuda_tests() -> None:
    names = [path.name for path in cuda_tests.files_with_cuda_tests(ROOT / "tests")]
    assert {"test_execution.py", "test_module.py", "test_exact.py"} < set(names)
    assert "test_demo_page.py" not in names  # it needs selenium


def test_dry_run() -> None:
    """Run two stages of a dry run; .ci/run runs all of them."""
    before = {path: path.stat().st_mtime_ns for path in RESULTS.rglob("*")}
    program = [sys.executable, gpu.__file__, "--dry_run", "--only", "tests", "accuracy"]
    done = subprocess.run(program, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "\n| stage | outcome | seconds |\n|---|---|---|\n| tests | done | " in done.stdout
    assert "\n| accuracy | done | " in done.stdout
    assert {path: path.stat().st_mtime_ns for path in RESULTS.rglob("*")} == before
