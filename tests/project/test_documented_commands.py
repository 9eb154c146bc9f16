"""Each command and each Python snippet of the README and of docs/ runs, with less data."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_amp.__main__ import main
from tests.conftest import Run, started
from tests.integrations.packages import needs
from tests.project.documents import PAGES, ROOT, all_commands, blocks, commands

QUICK = {
    "MNIST_AMP_TRAINER__LIMIT_TRAIN_BATCHES": "4",
    "MNIST_AMP_TRAINER__LIMIT_VAL_BATCHES": "2",
    "MNIST_AMP_TRAINER__LOG_EVERY_N_STEPS": "1",
}
# change the shell or the clone; nothing is left to test in them
NOT_RUN = {"source .venv/bin/activate", "git switch main", "git switch my-change"}
# take long, and differ from a command that runs only in their options: these are parsed
ONLY_PARSED = {
    "mnist-amp compare --axes '{network.hidden_dim: [128, 1024], data.batch_size: [64, 512]}'",
    "mnist-amp compare --network.hidden_dim 512 --data.batch_size 256 --axes '{data.batch_size: []}' --seeds 0",
    "mnist-amp compare --precisions '[32-true,bf16-mixed,bf16-true]'",
    "mnist-amp compare --model my_module.MyModule --model.width 256 --data my_module.MyData "
    "--metric val_loss --mode min",
    "mnist-amp compare --model my_module.MyModule --data my_module.MyData "
    "--axes '{model.width: [64, 1024], data.batch_size: [32, 256]}'",
    "mnist-amp fit --data.dataset FashionMNIST",  # these are downloads
    "mnist-amp fit --data.dataset CIFAR10 --network CNN",
    "mnist-amp fit --data.dataset EMNIST --data.dataset_args '{split: letters}'",
    # the reader's own digits, corrected; tests/data/test_extra_folder.py and tests/cli/test_weights.py train on some
    "mnist-amp fit --weights best --data.extra_folder my_digits --optimizer.lr 3e-4",
    "mnist-amp fit --weights best --data.folder my_digits --data.val_size 0 --data.batch_size 16 --optimizer.lr 3e-4 "
    "--trainer.max_epochs 20",
    "mnist-amp fit --config configs/ddp-cpu.yaml",  # tests/cli/test_configs.py runs it
    "python examples/sweep.py --space my_space.yaml --folder sweep-own --data.folder photos --data.image_size 32",
    "python examples/sweep.py --folder sweep-loss --metric val_loss --mode minimize --trainer.max_epochs 10",
    "python examples/sweep.py --folder sweep-shared --storage postgresql://user:password@host/sweeps",
    "python examples/sweep.py --folder sweep-seeds --seeds 3",
    *(f"mnist-amp {name} --config configs/mlflow.yaml" for name in ("fit", "test")),  # test_trackers.py runs them
}
SWEEP = "examples/sweep.py"
SLOW = ("mnist-amp compare", "mnist-amp demo", "mnist-amp profile")
NEEDS_CUDA = ("configs/fp16-cuda.yaml", "configs/cuda.yaml")
# run on exported files by tests/inference/test_export.py and tests/integrations/test_runtimes.py
SNIPPETS_ELSEWHERE = {"docs/export.md", "docs/runtimes.md"}


def repeated_in(page: str) -> set[str]:
    """Return the slow commands that an earlier page has, character for character."""
    earlier = {line for other in PAGES[: PAGES.index(page)] for line in commands(other)}
    return {line for line in earlier if line.startswith(SLOW)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash", "python")])
def test_page(
    page: str, run: Run, fitted: Run, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a page's commands and snippets in their order in one folder, in which a run exists already."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # where the images are
    (tmp_path / "data").symlink_to(data_dir)
    fitted("--trainer.max_epochs=1")
    repeated = repeated_in(page)
    for language, text in blocks(page, "bash", "python"):
        if language == "bash":
            for line in text.splitlines():
                if line not in repeated:
                    run_line(run, line, tmp_path, monkeypatch)
        elif (name := re.match(r"# (\w+\.py)\n", text)) is not None:  # a file that the reader writes
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
        elif page not in SNIPPETS_ELSEWHERE:
            exec(compile(text, page, "exec"), {"__name__": page})


def run_line(run: Run, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    assignments = [words.pop(0) for _ in range(len(words)) if "=" in words[0]]
    if words[0] == "cmp":
        subprocess.run(words, cwd=folder, check=True)
    if words[:2] == ["python", SWEEP] and line not in ONLY_PARSED:
        needs("optuna")
        subprocess.run([sys.executable, str(ROOT / SWEEP), *words[2:], "--trials=2"], cwd=folder, check=True)
    if words[0] == "mnist-amp":
        with monkeypatch.context() as environment:
            for assignment in assignments:
                environment.setenv(*assignment.split("=", 1))
            if "--model" in words:  # the data are the reader's own
                environment.delenv("MNIST_AMP_DATA__DATA_DIR")
            run_command(run, line, words[1:], folder)


def run_command(run: Run, line: str, args: list[str], folder: Path) -> None:
    if args in (["--help"], ["--version"]):  # answered before jsonargparse, which exits
        main(args)
    elif {"--help", "--print_config"} & set(args) or line in ONLY_PARSED:
        assert exit_status(run, *args, *(["--print_config"] if line in ONLY_PARSED else [])) == 0
    elif set(NEEDS_CUDA) & set(args) and not torch.cuda.is_available():
        os.environ.pop("MNIST_AMP_TRAINER__ACCELERATOR", None)
        assert exit_status(run, *args) == 2
    elif args[0] == "compare":  # the grid is for the reader's patience
        axes = [] if "--axes" in args else ["--axes={data.batch_size: [64]}"]
        run(*args, "--seconds=0.01", "--rounds=1", "--seeds=1", *axes)
    elif args[0] == "profile":
        run(*args, "--steps=3", "--warmup=1")
    elif args[0] == "export":  # test_export.py makes the other formats, which take long
        run(*args, *([] if "int8" in line else ["--formats=[pth]"]))
    elif args[0] == "demo":
        serve(*args, folder=folder)
    else:
        run(*args)


def exit_status(run: Run, *args: str) -> object:
    with pytest.raises(SystemExit) as exit_info:
        run(*args)
    return exit_info.value.code


def serve(*args: str, folder: Path) -> None:
    """Run the demo until its page is served, and stop it; by SIGTERM, because a job can ignore Ctrl-C."""
    with started(*args, "--port=0", cwd=folder) as process:
        assert process.stdout is not None
        assert any(line.startswith("page        http://127.0.0.1:") for line in iter(process.stdout.readline, ""))
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_ddp_is_run_elsewhere() -> None:
    assert "ddp-cpu" in (ROOT / "tests" / "cli" / "test_configs.py").read_text(encoding="utf-8")


def test_no_command_is_left_untested() -> None:
    lines = set(all_commands())
    kinds = {next(word for word in shlex.split(line) if "=" not in word) for line in lines - NOT_RUN}
    assert kinds == {"cmp", "make", "mnist-amp", "python", "torchrun"}  # tests/cli/test_launchers.py runs the last
    assert lines >= NOT_RUN | ONLY_PARSED
    assert len(lines) > 50


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not (ROOT / ".venv" / ".installed").exists(), reason="needs the .venv that make sets up")
def test_make_fit(tmp_path: Path, data_dir: Path) -> None:
    """Run `make fit` where there is a set-up already: it installs nothing, trains and tests."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    words = ["make", "fit", "ARGS=--trainer.max_epochs 2"]
    done = subprocess.run(words, cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    assert "pip install" not in done.stdout
    assert "Epoch 1: 4 batches" in done.stdout
    assert "Epoch 2" not in done.stdout
    assert " of 10,000 images\n" in done.stdout


@pytest.mark.parametrize("line", sorted({line for line in all_commands() if line.startswith("make ")}))
def test_make_targets_exist(line: str) -> None:
    subprocess.run([*shlex.split(line), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("line", sorted({line for line in all_commands() if line.startswith("python ")}))
def test_benchmarks_take_these_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script, *options = shlex.split(line)
    if script == SWEEP:
        needs("optuna")
    monkeypatch.setattr(sys, "argv", [script, *options, "--help"])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert exit_info.value.code == 0


def test_every_benchmark_is_documented() -> None:
    programs = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")}
    named = {Path(shlex.split(line)[1]).name for line in all_commands() if line.startswith("python benchmarks")}
    # speed.py, own_modules.py, bigger_networks.py and gpu.py run them
    assert named == programs - {
        "contenders.py",
        "own_loops.py",
        "bare_networks.py",
        "compiled_loop.py",
        "cuda_tests.py",
    }
