"""The README: each of its commands runs, with less data, and its figures are those of the saved results."""

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

import readme
from mnist_amp.__main__ import main
from mnist_amp.networks.simple_nn import SimpleNN
from tests.conftest import Run, command, started

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = {
    "MNIST_AMP_TRAINER__LIMIT_TRAIN_BATCHES": "4",
    "MNIST_AMP_TRAINER__LIMIT_VAL_BATCHES": "2",
    "MNIST_AMP_TRAINER__LOG_EVERY_N_STEPS": "1",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("quick")
def test_mnist_amp_commands(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run them all in their order in one folder, as a reader does."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # where there are pictures
    ran = []
    for line in COMMANDS:
        words = shlex.split(line)
        assignments = [words.pop(0) for _ in range(len(words)) if "=" in words[0]]
        if words[0] != "mnist-amp":
            continue
        with monkeypatch.context() as environment:
            for assignment in assignments:
                environment.setenv(*assignment.split("=", 1))
            run_one(run, words[1:], tmp_path)
        ran.append(line)
    assert len(ran) >= 25
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def run_one(run: Run, args: list[str], folder: Path) -> None:
    """Run a command of the README, which must end well, but for what it says needs a GPU."""
    if "configs/ddp-cpu.yaml" in args:  # starts processes of its own
        command(*args, cwd=folder)
    elif args[0] == "compare":  # the grid is for the reader's patience
        run(*args, "--seconds=0.01", "--rounds=1", "--seeds=1", "--hidden_dims=[16]", "--batch_sizes=[64]")
    elif args[0] == "profile":
        run(*args, "--steps=3", "--warmup=1")
    elif args[0] == "export":  # test_export.py makes the others, which take long
        run(*args, "--formats=[pth]")
    elif args[0] == "demo":
        serve(*args, folder=folder)
    elif args == ["--help"]:  # answered before jsonargparse, which leaves with SystemExit
        main(args)
    elif {"--help", "--print_config"} & set(args):
        with pytest.raises(SystemExit) as exit_info:
            run(*args)
        assert exit_info.value.code == 0
    elif "configs/fp16-cuda.yaml" in args and not torch.cuda.is_available():
        os.environ.pop("MNIST_AMP_TRAINER__ACCELERATOR")
        with pytest.raises(SystemExit) as exit_info:
            run(*args)
        assert exit_info.value.code == 2
    else:
        run(*args)


def serve(*args: str, folder: Path) -> None:
    """Run what serves a page until it is told to stop, and stop it; by SIGTERM, as Ctrl-C may be ignored in a job."""
    with started(*args, "--port=0", cwd=folder) as process:
        assert process.stdout is not None
        assert any(line.startswith("page        http://127.0.0.1:") for line in iter(process.stdout.readline, ""))
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not (ROOT / ".venv" / ".installed").exists(), reason="needs the .venv that make sets up")
def test_make_fit(tmp_path: Path, data_dir: Path) -> None:
    """Run `make fit` where there is a set-up already: it installs nothing, trains and tests."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (line,) = (line for line in COMMANDS if line.startswith("make fit ARGS"))
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    done = subprocess.run(shlex.split(line), cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    assert "pip install" not in done.stdout
    assert "Epoch 1: 4 batches" in done.stdout
    assert "Epoch 2" not in done.stdout
    assert " of 10,000 images\n" in done.stdout


def test_make_targets_exist() -> None:
    for line in COMMANDS:
        if line.startswith("make "):
            subprocess.run([*shlex.split(line), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_benchmarks_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [shlex.split(line)[1] for line in COMMANDS if line.startswith("python ")]
    assert sorted(set(scripts)) == [
        f"benchmarks/{name}.py"
        for name in (
            *("accuracy", "exports", "own_digits", "precision", "readme", "scale", "soak", "speed", "startup"),
        )
    ]
    for script in scripts:
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert exit_info.value.code == 0


def test_no_command_is_left_untested() -> None:
    kinds = {next(word for word in shlex.split(line) if "=" not in word) for line in COMMANDS}
    assert kinds == {"make", "mnist-amp", "python"}


def test_figures_are_the_saved_results() -> None:
    for document in readme.documents(ROOT):
        text = document.read_text(encoding="utf-8")
        assert readme.filled(text, ROOT) == text, document
    assert readme.left_out(ROOT) == []


def test_the_parameter_count_shown_is_the_networks() -> None:
    count = sum(weight.numel() for weight in SimpleNN().parameters())
    assert f"model      LitSimpleNN, {count:,} parameters\n" in README
