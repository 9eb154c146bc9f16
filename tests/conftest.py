"""What the tests share: MNIST prepared once, and the command run in this process in a fresh directory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# before torch is imported: tests that run side by side would fight for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from matplotlib.figure import Figure

from mnist_amp.__main__ import main
from mnist_amp.cli.arguments import ENV_PREFIX
from mnist_amp.data import mnist
from tests.forked import Forked

# for a process of its own that takes a callback from the tests
ROOT = Path(__file__).parents[1]
WITH_TESTS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}

Run = Callable[..., str]
Refused = Callable[..., str]


# the least that is a checkpoint, but for weights
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
    "hyper_parameters": {"hidden_dim": 4, "optimizer": None, "lr_scheduler": None, "lr_scheduler_interval": "epoch"},
}


class Malicious:
    """Leaves a file if it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


# of the longest tests; they come first, or one process would be left with them at the end
LONGEST = ("test_documented_commands", "test_export", "test_signals", "test_wheel")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "drawn: has matplotlib draw the figures of its runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the real MNIST in it."""
    folder = tmp_path_factory.mktemp("mnist")
    mnist.prepare(folder)
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith((ENV_PREFIX, "PL_")):
            monkeypatch.delenv(name)
    # what is tested on other devices says so
    monkeypatch.setenv(f"{ENV_PREFIX}TRAINER__ACCELERATOR", "cpu")


@pytest.fixture
def sketched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the figures as they are, but leave it to tests marked `drawn` to have matplotlib draw them.

    That is a third to a half of the time of a short run, and what is drawn is for test_plots.py to know.
    """
    if not request.node.get_closest_marker("drawn"):
        monkeypatch.setattr(Figure, "savefig", lambda self, path: Path(path).write_bytes(b"\x89PNG"))


@pytest.fixture
def verified(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what `data_dir` has made and verified be, as to look at it again is a tenth of a short run's time."""
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
) -> Iterator[Run]:
    """Run `mnist-amp` with the arguments given, in a fresh directory; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_AMP_DATA__DATA_DIR", str(data_dir))

    def run(*args: str) -> str:
        capsys.readouterr()
        main(list(args))
        return capsys.readouterr().out

    yield run
    # Lightning's seed_everything leaves it behind
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session")
def fits() -> dict[tuple[str, ...], tuple[str, Path]]:
    """Return what `fitted` has carried out: what was printed and a copy of the run, by its number and arguments."""
    return {}


@pytest.fixture
def fitted(run: Run, fits: dict[tuple[str, ...], tuple[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `mnist-amp fit` for a run to start from: the same arguments are carried out once for all tests."""

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
    """Return where `checkpoint` keeps what it has made once."""
    return tmp_path_factory.mktemp("kept") / "last.ckpt"


@pytest.fixture
def checkpoint(run: Run, kept: Path) -> dict[str, Any]:
    """Return what is in the checkpoint of a run of an epoch with a schedule; the run itself is not there."""
    if not kept.exists():
        run("fit", "--config=smoke.yaml", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=5")
        shutil.move("lightning_logs/version_0/checkpoints/last.ckpt", kept)
        shutil.rmtree("lightning_logs")
    content: dict[str, Any] = torch.load(kept, weights_only=True)
    return content


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `mnist-amp` with arguments that it must refuse, with exit status 2; returns its message."""

    def refused(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            run(*args)
        assert exit_info.value.code == 2
        return capsys.readouterr().err

    return refused


def command(*args: str, cwd: Path, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run `python -m mnist_amp`, which must end with `status`; returns what it wrote to stdout."""
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
    """Start `python -m mnist_amp`, which goes on until it is told to stop; if it was not, it is killed at the end."""
    program = [sys.executable, "-m", "mnist_amp", *args]
    with subprocess.Popen(program, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def forked(*args: str, cwd: Path, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run `mnist-amp` in a process of its own, but forked, which must end with `status`; returns its stdout."""
    process = Forked(*args, cwd=cwd, env=env)
    assert process.wait() == status, process.stderr
    return process.stdout


def files(folder: Path) -> set[str]:
    """Return the files under a folder, TensorBoard's under a fixed name, as its own ends in the time and the host."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        (path.with_name("EVENTS") if path.name.startswith("events.out.tfevents.") else path).as_posix()
        for path in paths
    }
