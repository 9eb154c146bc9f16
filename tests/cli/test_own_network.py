"""A user's own network and data set, by name, through every command."""

import csv
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mnist_amp.__main__ import main
from mnist_amp.module import LitClassifier
from tests.conftest import WITH_TESTS, Refused, Run, command
from tests.forked import Forked
from tests.runs.test_exact import assert_same, last

OWN = """
import torch
from torch import nn
from torch.utils.data import Dataset


class Net(nn.Module):
    def __init__(self, width: int = 8, dropout: float = 0.2, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(3)
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(9 * width, num_classes))

    def forward(self, images):
        return self.classifier(self.features(images))


class Squares(Dataset):
    classes = ("none", "one", "two", "three", "four", "five", "six, or more")

    def __init__(self, root, train=True, download=False, size=420):
        generator = torch.Generator().manual_seed(int(train))
        self.labels = torch.arange(size) % 7
        self.images = torch.randint(0, 90, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
        for image, label in zip(self.images, self.labels):
            image[label % 3, : 4 * int(label)] += 120

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])
"""
SETTINGS = (
    *("--network=squares.Net", "--network.width=6", "--data.dataset=squares.Squares"),
    *("--trainer.max_epochs=3", "--trainer.log_every_n_steps=1", "--trainer.precision=bf16-mixed"),
)
CLASSES = ["none", "one", "two", "three", "four", "five", "six, or more"]


@pytest.fixture(autouse=True)
def package(tmp_path: Path) -> Iterator[None]:
    """Write the user's module into the folder where the commands run, as if it were new."""
    (tmp_path / "squares.py").write_text(OWN)
    yield
    sys.modules.pop("squares", None)


def test_through_every_command(run: Run, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run("fit", *SETTINGS)
    assert "network    Net (width 6, dropout 0.2), 565 parameters\n" in printed
    run("validate")
    assert " of 420 images\n" in run("test")
    report = json.loads(Path("lightning_logs/version_0/test_best/metrics.json").read_text())
    assert (report["images"], len(report["confusion_matrix"])) == (420, 7)
    assert report["accuracy"] > 0.5  # chance is 0.14
    run("predict")
    with Path("lightning_logs/version_0/predict_best/predictions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 421
    assert "Net (width 6, dropout 0.2), batch_size 64, Adam" in run("profile", *SETTINGS, "--steps=3", "--warmup=1")
    assert refused("demo", "--port=0").startswith("mnist-amp: error: demo ")
    run("test", "--ckpt_path=lightning_logs/version_0/model.pth", "--data.dataset=squares.Squares")
    run(
        "fit",
        "--weights=lightning_logs/version_0/model.pth",
        "--trainer.max_epochs=1",
        "--data.dataset=squares.Squares",
    )
    monkeypatch.syspath_prepend(tmp_path)  # as in a program of the user's
    module = LitClassifier.load_from_checkpoint("lightning_logs/version_0/checkpoints/best.ckpt")
    assert module.hparams["network"] == {"class_path": "squares.Net", "init_args": {"width": 6, "dropout": 0.2}}
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_exports_in_every_format(run: Run) -> None:
    run("fit", *SETTINGS)
    run("export", "--dtypes=[float32,float16,bfloat16]")
    results = json.loads(Path("lightning_logs/export/version_0/results.json").read_text())
    assert len(results["files"]) == 12
    for file in results["files"]:
        assert file["classes"] == CLASSES
        assert file["largest_difference"] <= file["allowed_difference"]
        assert file["network"] == {"class_path": "squares.Net", "init_args": {"width": 6, "dropout": 0.2}}
    assert results["accuracy"]["correct"] == next(
        file["accuracy"]["correct"] for file in results["files"] if file["file"] == "model-float32.onnx"
    )
    exported = torch.load("lightning_logs/export/version_0/model-float32.pth", weights_only=True)
    trained = torch.load("lightning_logs/version_0/model.pth", weights_only=True)
    assert exported.keys() == trained.keys()
    assert all(torch.equal(exported[name], trained[name]) for name in trained)


def test_killed_and_resumed_to_the_bit(run: Run, tmp_path: Path) -> None:
    """Its dropout depends on the random states, and its batch normalisation has buffers."""
    settings = (*SETTINGS, "--checkpoint.every_n_train_steps=2", "--trainer.max_epochs=6")
    run("fit", *settings)
    slowly = ("--trainer.callbacks+=tests.interrupt.Slowly",)
    process = Forked("fit", *settings, *slowly, cwd=tmp_path, env=dict(WITH_TESTS))
    checkpoint = tmp_path / "lightning_logs/version_1/checkpoints/last.ckpt"
    for _ in range(6000):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < last(1)["global_step"] < last(0)["global_step"] == 42
    run("fit", "--ckpt_path=last", "--trainer.callbacks=null")
    assert_same(2)


def test_several_steps_per_execution_are_the_same_steps(run: Run) -> None:
    run("fit", *SETTINGS)
    run("fit", *SETTINGS, "--model.steps_per_execution=4")
    for name, value in last(0)["state_dict"].items():
        assert torch.equal(last(1)["state_dict"][name], value), name


def test_two_processes(run: Run, tmp_path: Path) -> None:
    """Each prepares the data set; the metrics of the test are those of one process."""
    command("fit", *SETTINGS, "--config=ddp-cpu.yaml", cwd=tmp_path)
    run("test")
    one = Path("lightning_logs/version_0/test_best/metrics.json").read_bytes()
    command("test", "--trainer.devices=2", "--trainer.strategy=ddp", cwd=tmp_path)
    assert Path("lightning_logs/version_0/test_best/metrics.json").read_bytes() == one


def test_what_is_wrong_is_named_in_one_line(run: Run, refused: Refused) -> None:
    run("fit", *SETTINGS)
    last_checkpoint = "lightning_logs/version_0/checkpoints/last.ckpt"
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=9", "--network.width=7") == (
        f"mnist-amp: error: {last_checkpoint} holds another network (checkpoint -> now): network.width 6 -> 7. Leave "
        "network.width out, or start without this checkpoint.\n"
    )
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=9", "--network=CNN") == (
        f"mnist-amp: error: {last_checkpoint} holds another network (checkpoint -> now): network Net -> CNN. Leave "
        "network out, or start without this checkpoint.\n"
    )
    assert refused("test", "--data.dataset=MNIST") == (
        "mnist-amp: error: lightning_logs/version_0/checkpoints/best.ckpt was trained on images of 3 x 32 x 32 in "
        "7 classes, but the data are images of 1 x 28 x 28 in 10 classes. Name the data that it was "
        "trained on with --data.dataset or --data.folder, or start without this checkpoint.\n"
    )
    Path("squares.py").rename("circles.py")
    assert refused("test") == (
        "mnist-amp: error: lightning_logs/version_0/checkpoints/best.ckpt has squares.Net as network, but there is no "
        "module squares, neither installed nor in the current folder. Run the command in the folder that has it.\n"
    )


@pytest.mark.parametrize("network", ["CNN", "ViT", "WideMLP", "torchvision.models.resnet18"])
def test_networks_by_name_are_exported_as_they_compute(run: Run, network: str) -> None:
    """Each format, checked on all test images."""
    small = {"CNN": ["--network.width=4"], "ViT": ["--network.depth=1", "--network.patch_size=8"]}
    small["WideMLP"] = ["--network.hidden_dim=32"]
    settings = [f"--network={network}", *small.get(network, []), *SETTINGS[2:], "--trainer.max_epochs=1"]
    run("fit", *settings, "--trainer.limit_train_batches=3")
    run("export")
    results = json.loads(Path("lightning_logs/export/version_0/results.json").read_text())
    assert [file["file"].rpartition(".")[2] for file in results["files"]] == ["pth", "safetensors", "onnx", "pt2"]
    for file in results["files"]:
        assert file["accuracy"] == results["accuracy"]
        assert file["differing_guesses"] == 0


def test_other_images_are_refused(run: Run, refused: Refused) -> None:
    """By the names of the classes, for a checkpoint and for weights alone; by their number, for a validation."""
    run("fit", *SETTINGS)
    named = OWN.replace('"six, or more"', '"many"').replace('"one"', '"single"')
    Path("rectangles.py").write_text(named)
    for file in ("checkpoints/best.ckpt", "model.pth"):
        path = f"lightning_logs/version_0/{file}"
        assert refused("test", f"--ckpt_path={path}", "--data.dataset=rectangles.Squares") == (
            f"mnist-amp: error: {path} was trained on other classes: class 1 was one, and is single in the data. Name "
            "the data that it was trained on with --data.dataset or --data.folder, or start without this checkpoint.\n"
        )
    path = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert refused("validate", "--data.dataset_args={size: 427}") == (
        f"mnist-amp: error: {path} may have been trained on images that are validation images now, so their accuracy "
        "may be too high. The data have 427 training images, and had 420.\n"
    )


def test_more_images_on_resume_are_warned_of(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", *SETTINGS, "--trainer.max_epochs=1")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--data.dataset_args={size: 427}"])
    assert (
        "mnist-amp: warning: the data have 427 training images, and had 420: the run is not continued exactly.\n"
        "mnist-amp: warning: lightning_logs/version_0/checkpoints/last.ckpt may have been trained on images that are "
        "validation images now, so their accuracy may be too high. The data have 427 training images, and had 420.\n"
    ) in capsys.readouterr().err
