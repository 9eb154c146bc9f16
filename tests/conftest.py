"""Shared fixtures: MNIST, prepared once, and the command, run in this process in a new directory."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# before torch is imported: parallel tests would compete for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from PIL import Image

from mnist_amp import signals
from mnist_amp.__main__ import main
from mnist_amp.cli.arguments import ENV_PREFIX
from mnist_amp.data import mnist
from tests.forked import Forked

# the environment of a process that imports a callback from the tests
ROOT = Path(__file__).parents[1]
WITH_TESTS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}

Run = Callable[..., str]
Refused = Callable[..., str]


# the same examples in each run: a test that fails sometimes helps nobody
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("fixed")

# in an expected message: words of Python, torch, Lightning and others, which differ by version
THEIRS = "…"

# variables of a cluster's job or of a terminal that change the command or Lightning; the tests set their own
FOREIGN = re.compile(
    rf"_?{ENV_PREFIX}|PL_|SLURM_|LSB_|JSM_|TORCHELASTIC_|OMPI_|PMI_|GLOO_|LOCAL_WORLD_SIZE|(MASTER_(ADDR|PORT)|WORLD_SIZE|(LOCAL_|NODE_|GROUP_)?RANK)$"
    "|(FORCE_COLOR|PYTHON_COLORS|COLUMNS|LINES)$"
)
for name in filter(FOREIGN.match, list(os.environ)):  # also for what session fixtures make
    del os.environ[name]


def filled(wanted: str, found: str) -> str:
    """Return an expected message in which each `THEIRS` is replaced by the words that were found, to compare by ==."""
    fits = re.fullmatch(re.escape(wanted).replace(THEIRS, r"[^\n]+"), found)
    return found if fits else wanted


def simple_nn(hidden_dim: int) -> dict[str, Any]:
    """Return class_path and init_args of a SimpleNN."""
    return {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": hidden_dim}}


# the smallest checkpoint, without weights
WHOLE: dict[str, Any] = {
    "pytorch-lightning_version": "2.6.6",
    "epoch": 1,
    "global_step": 2,
    "loops": {
        "fit_loop": {
            "epoch_progress": {"current": {"ready": 1}},
            "epoch_loop.batch_progress": {"current": {"ready": 2}, "is_last_batch": True},
        }
    },
    "hyper_parameters": {
        "network": simple_nn(4),
        "num_classes": 10,
        "image_shape": [1, 28, 28],
        "optimizer": None,
        "lr_scheduler": None,
        "lr_scheduler_interval": "epoch",
    },
}


class Malicious:
    """Creates a file if it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


# files with the longest tests: they run first, or one process would run them alone at the end
LONGEST = ("test_documented_commands", "test_export", "test_notebook", "test_own_project", "test_signals", "test_wheel")


@pytest.hookimpl(tryfirst=True)  # an order that is asked for, such as a random one, comes after it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in [] if torch.cuda.is_available() else items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with MNIST."""
    folder = tmp_path_factory.mktemp("mnist")
    mnist.prepare(folder)
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in filter(FOREIGN.match, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    # tests on other devices remove it
    monkeypatch.setenv(f"{ENV_PREFIX}TRAINER__ACCELERATOR", "cpu")


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """Fail a test that leaves handlers of signals: a later test that sends this process a signal would end it."""
    before = {signum: signal.getsignal(signum) for signum in signals.HANDLED}
    yield
    left = {signum for signum, handler in before.items() if signal.getsignal(signum) is not handler}
    for signum in left:
        signal.signal(signum, before[signum])
    assert not left


@pytest.fixture
def sketched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the plots, but do not draw them, except in tests marked `drawn`.

    Drawing takes a third to a half of the time of a short run, and test_plots.py tests it.
    """
    if not request.node.get_closest_marker("drawn"):
        monkeypatch.setattr(Figure, "savefig", lambda self, path: Image.new("L", (1, 1)).save(path, "PNG"))


@pytest.fixture
def verified(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not verify the files of `data_dir` again: it takes a tenth of the time of a short run."""
    prepare = mnist.prepare
    monkeypatch.setattr(mnist, "prepare", lambda folder: None if folder == data_dir else prepare(folder))


@pytest.fixture
def run(
    tmp_path: Path,
    data_dir: Path,
    sketched: None,
    verified: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run `mnist-amp` with arguments in a new directory, and return the printed text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_AMP_DATA__DATA_DIR", str(data_dir))

    def run(*args: str) -> str:
        capsys.readouterr()
        main(list(args))
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def fits() -> dict[tuple[str, ...], tuple[str, Path]]:
    """Return the runs of `fitted`: the printed text and a copy of the folder, by its name and arguments."""
    return {}


@pytest.fixture
def fitted(run: Run, fits: dict[tuple[str, ...], tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `mnist-amp fit` once for all tests that give the same arguments; the others get a copy of the run."""

    def fitted(*args: str) -> str:
        assert not any(arg.startswith("--ckpt_path") for arg in args)
        folder = Path("lightning_logs") / f"version_{len(list(Path('lightning_logs').glob('version_*')))}"
        key = (folder.name, *args)
        if key not in fits:
            printed = run("fit", *args)
            fits[key] = printed, shutil.copytree(folder, tmp_path_factory.mktemp("fit") / folder.name)
            return printed
        printed, made = fits[key]
        shutil.copytree(made, folder)
        return printed

    return fitted


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file in which `checkpoint` keeps its checkpoint."""
    return tmp_path_factory.mktemp("kept") / "last.ckpt"


@pytest.fixture
def checkpoint(run: Run, kept: Path) -> dict[str, Any]:
    """Return the content of a checkpoint after one epoch with a schedule, without the run's folder."""
    if not kept.exists():
        run("fit", "--config=smoke.yaml", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=5")
        shutil.move("lightning_logs/version_0/checkpoints/last.ckpt", kept)
        shutil.rmtree("lightning_logs")
    content: dict[str, Any] = torch.load(kept, weights_only=True)
    return content


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `mnist-amp` with arguments that it must refuse with exit status 2; return its message."""

    def refused(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            run(*args)
        assert exit_info.value.code == 2
        return capsys.readouterr().err

    return refused


def command(*args: str, cwd: Path, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run `python -m mnist_amp`, which must end with `status`; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "mnist_amp", *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


@contextmanager
def started(*args: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m mnist_amp`, and kill it at the end of the block if it still runs."""
    program = [sys.executable, "-m", "mnist_amp", *args]
    with subprocess.Popen(program, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def forked(*args: str, cwd: Path, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run `mnist-amp` in a forked process, which must end with `status`; return its stdout."""
    process = Forked(*args, cwd=cwd, env=env)
    assert process.wait() == status, process.stderr
    return process.stdout


def files(folder: Path) -> set[str]:
    """Return the files under a folder; those of TensorBoard are named EVENTS, without their time and host."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        (path.with_name("EVENTS") if path.name.startswith("events.out.tfevents.") else path).as_posix()
        for path in paths
    }
