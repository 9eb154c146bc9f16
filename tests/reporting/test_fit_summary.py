"""The summary of a fit: its text, and the files that the callback writes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn

from mnist_amp.errors import RequestError, RunError
from mnist_amp.reporting import fit_summary, plots
from mnist_amp.reporting.fit_summary import FitResult, FitSummary, describe
from mnist_amp.runs import checkpoint_contents, checkpoint_files
from mnist_amp.runs.checkpoint_contents import EpochMetrics, Progress
from mnist_amp.training.compilation import CompileUse
from mnist_amp.training.execution import GraphUse
from tests.conftest import files

RESULT = FitResult(
    accuracy=0.9718,
    images_of="validation",
    epochs=4,
    average=None,
    ended=None,
    images=275_000,
    seconds=10.0,
    data_seconds=0.25,
    graphs=None,
    compiled=None,
    device_memory=None,
    folder="lightning_logs/version_0",
    files=["model.pth", "checkpoints/"],
    next_steps=["mnist-amp test", "tensorboard --logdir lightning_logs"],
)


def test_text_of_a_fit_with_validation() -> None:
    assert (
        describe(RESULT)
        == """
accuracy  97.18% on the validation images (best checkpoint, after 4 epochs)
time      10.0 s, 27,500 samples/s (training, validation and checkpoints; 2.5% spent waiting for data)
files     lightning_logs/version_0/ (model.pth, checkpoints/)
next      mnist-amp test
          tensorboard --logdir lightning_logs"""
    )


def test_text_of_a_compiled_fit() -> None:
    text = describe(replace(RESULT, compiled=CompileUse("the whole step", 12.34, None)))
    assert "compiled  the whole step in 12.3 s, which are not part of the time\n" in text
    part = CompileUse("the network and its loss", 2.0, "gradients are clipped")
    assert (
        "compiled  the network and its loss in 2.0 s, which are not part of the time; not the whole step, because "
        "gradients are clipped\n" in describe(replace(RESULT, compiled=part))
    )


def test_text_without_validation() -> None:
    text = describe(replace(RESULT, accuracy=0.96, images_of="training", epochs=1))
    assert "accuracy  96.00% on the training images (no validation; newest weights, after 1 epoch)\n" in text


def test_text_without_checkpoints() -> None:
    result = replace(RESULT, accuracy=None, images_of="training", epochs=None, data_seconds=None, files=["config.yaml"])
    assert (
        describe(replace(result, seconds=0.0, images=0, next_steps=[]))
        == """
accuracy  unknown
time      0.0 s, 0 samples/s (training, validation and checkpoints)
files     lightning_logs/version_0/ (config.yaml)"""
    )


@pytest.mark.parametrize(
    ("graphs", "line"),
    [
        (
            GraphUse(4600, 4690, None),
            "4,600 of 4,690 optimizer steps replayed as CUDA graphs; the others ran before the capture",
        ),
        (GraphUse(4690, 4690, None), "4,690 of 4,690 optimizer steps replayed as CUDA graphs"),
        (
            GraphUse(0, 4690, "Spy looks into each step"),
            "0 of 4,690 optimizer steps replayed as CUDA graphs; all ran one after the other because Spy looks into "
            "each step",
        ),
        (
            GraphUse(50, 4690, "the capture failed"),
            "50 of 4,690 optimizer steps replayed as CUDA graphs; the others ran one after the other because the "
            "capture failed",
        ),
    ],
)
def test_text_on_a_gpu(graphs: GraphUse, line: str) -> None:
    assert (
        describe(replace(RESULT, graphs=graphs, device_memory=1_234_500_000))
        == f"""
accuracy   97.18% on the validation images (best checkpoint, after 4 epochs)
time       10.0 s, 27,500 samples/s (training, validation and checkpoints; 2.5% spent waiting for data)
execution  {line}
memory     at most 1,234 MB on the GPU
files      lightning_logs/version_0/ (model.pth, checkpoints/)
next       mnist-amp test
           tensorboard --logdir lightning_logs"""
    )


class Net(LightningModule):
    """A module as the callback sees it after a fit: the network is its attribute `model`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1))
        self.train_means = SimpleNamespace(seen=500)
        self.execution = SimpleNamespace(outcome=lambda: GraphUse(8, 10, None))
        self.compilation = None


class Nowhere(Logger):
    """A logger without a folder."""

    name = version = None

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


def fit(summary: FitSummary, module: Net, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Call the hooks of a fit that takes 2 seconds, of which the loader measures half a second."""
    trainer: Any = SimpleNamespace(
        **{"is_global_zero": True, "world_size": 2, "should_stop": False, "loggers": [], **settings},
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        train_dataloader=SimpleNamespace(seconds=0.5),
    )
    clock = iter((100.0, 102.0))
    monkeypatch.setattr(fit_summary, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    summary.on_train_start(trainer, module)
    summary.on_train_end(trainer, module)
    summary.on_fit_end(trainer, module)


@pytest.fixture
def run_folder(tmp_path: Path) -> Any:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.csv").touch()
    return SimpleNamespace(path=folder)


@pytest.fixture
def checkpoint(run_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a checkpoint callback whose best checkpoint, of 3 epochs, holds the weights of a new `Net`."""
    content = {"state_dict": Net().state_dict()}
    monkeypatch.setattr(checkpoint_files, "read", lambda path: content)
    monkeypatch.setattr(checkpoint_contents, "progress", lambda read: Progress(3, 30))
    best = run_folder.path / "checkpoints" / "best.ckpt"
    best.touch()
    row = EpochMetrics(0, 10, train_loss=0.4, train_accuracy=0.88)
    return SimpleNamespace(
        best=best, history=[row], monitor="val_accuracy", best_model_score=torch.tensor(0.9125), content=content
    )


def test_a_fit_leaves_the_network_and_its_curves(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(FitSummary(run_folder, checkpoint, lambda ending: ["mnist-amp test"]), Net(), monkeypatch)
    assert files(run_folder.path) == {"model.pth", "curves.png", "metrics.csv", "checkpoints/best.ckpt"}
    weights = torch.load(run_folder.path / "model.pth", weights_only=True)
    assert set(weights) == {"weight", "bias"}
    assert torch.equal(weights["weight"], checkpoint.content["state_dict"]["model.weight"])
    assert (run_folder.path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert (
        capsys.readouterr().out
        == f"""
accuracy   91.25% on the validation images (best checkpoint, after 3 epochs)
time       2.0 s, 500 samples/s (training, validation and checkpoints; 25.0% spent waiting for data)
execution  8 of 10 optimizer steps replayed as CUDA graphs; the others ran before the capture
files      {run_folder.path}/ (model.pth, curves.png, metrics.csv, checkpoints/)
next       mnist-amp test
"""
    )


def test_a_fit_without_validation_reports_the_accuracy_of_its_last_epoch(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.monitor = None
    fit(FitSummary(run_folder, checkpoint, lambda ending: []), Net(), monkeypatch)
    line = "\naccuracy   88.00% on the training images (no validation; newest weights, after 3 epochs)\n"
    assert capsys.readouterr().out.startswith(line)


def test_the_summary_is_printed_if_the_files_can_not_be_written(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder.path / "model.pth").mkdir()  # which no file can replace
    with pytest.raises(RunError, match=r"/model\.pth can't be written: Is a directory "):
        fit(FitSummary(run_folder, checkpoint, lambda ending: []), Net(), monkeypatch)
    assert "\naccuracy   91.25% on the validation images (best checkpoint, after 3 epochs)\n" in capsys.readouterr().out


def test_the_metrics_are_printed_before_the_curves_are_drawn(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []

    def draw(history: list[dict[str, float]], path: Path) -> None:
        printed.append(capsys.readouterr().out)
        raise ValueError("no font")

    monkeypatch.setattr(plots, "curves", draw)
    with pytest.raises(ValueError, match=r"^no font$"):
        fit(FitSummary(run_folder, checkpoint, lambda ending: ["mnist-amp test"]), Net(), monkeypatch)
    assert printed == [
        """
accuracy   91.25% on the validation images (best checkpoint, after 3 epochs)
time       2.0 s, 500 samples/s (training, validation and checkpoints; 25.0% spent waiting for data)
execution  8 of 10 optimizer steps replayed as CUDA graphs; the others ran before the capture
"""
    ]
    assert (
        capsys.readouterr().out
        == f"""files      {run_folder.path}/ (model.pth, metrics.csv, checkpoints/)
next       mnist-amp test
"""
    )


def test_the_summary_of_a_checkpoint_that_can_not_be_read(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(path: Path) -> Any:
        raise RequestError(f"{path} is damaged")

    monkeypatch.setattr(checkpoint_files, "read", read)
    with pytest.raises(RequestError, match=r"best\.ckpt is damaged$"):
        fit(FitSummary(run_folder, checkpoint, lambda ending: []), Net(), monkeypatch)
    assert (
        capsys.readouterr().out
        == f"""
accuracy   91.25% on the validation images
time       2.0 s, 500 samples/s (training, validation and checkpoints; 25.0% spent waiting for data)
execution  8 of 10 optimizer steps replayed as CUDA graphs; the others ran before the capture
files      {run_folder.path}/ (metrics.csv, checkpoints/)
"""
    )


def test_the_folders_of_own_loggers(
    run_folder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder.path = Path("logs/b/version_1")
    loggers = [CSVLogger("logs", name="x", version=3), TensorBoardLogger("logs", name=None, version="a"), Nowhere()]
    loggers.append(CSVLogger("logs", name="b", version=1))  # in the run's folder
    fit(FitSummary(run_folder, None, lambda ending: []), Net(), monkeypatch, loggers=loggers)
    assert (
        "\nlogs       logs/x/version_3/ (CSVLogger), logs/a/ (TensorBoardLogger), Nowhere\n" in capsys.readouterr().out
    )


def test_a_fit_without_checkpoints_leaves_no_files(
    run_folder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(FitSummary(run_folder, None, lambda ending: []), Net(), monkeypatch)
    assert files(run_folder.path) == {"metrics.csv"}
    assert capsys.readouterr().out.startswith("\naccuracy   unknown\ntime ")


def test_only_one_process_writes_and_prints(
    run_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(FitSummary(run_folder, checkpoint, lambda ending: []), Net(), monkeypatch, is_global_zero=False)
    assert files(run_folder.path) == {"metrics.csv", "checkpoints/best.ckpt"}
    assert capsys.readouterr().out == ""
