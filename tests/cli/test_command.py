"""The command on real MNIST, in its own process and a new directory."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from mnist_amp.data import mnist
from mnist_amp.data.normalization import Normalization
from mnist_amp.networks.simple_nn import SimpleNN
from tests.conftest import command, files, forked
from tests.forked import Forked

RUN = {
    *("EVENTS", "metrics.csv", "hparams.yaml", "config.yaml", "model.pth", "curves.png"),
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
}
DATA = {f"data/MNIST/raw/{name}{end}" for name in mnist.UNPACKED_MD5 for end in ("", ".gz")}
REPORT = {"metrics.json", "confusion_matrix.png", "misclassified.png", "reliability.png"}


def test_the_guides_job(tmp_path: Path) -> None:
    """Fit without arguments, test, validate, predict and resume: the files of each, and metrics that agree."""
    logs = tmp_path / "lightning_logs"
    summary = command("fit", cwd=tmp_path)
    assert files(tmp_path) == DATA | {f"lightning_logs/version_0/{name}" for name in RUN}

    printed = command("test", cwd=tmp_path)
    assert files(logs / "version_0") == RUN | {f"test_best/{name}" for name in REPORT}
    tested = json.loads((logs / "version_0" / "test_best" / "metrics.json").read_text())
    assert f"accuracy  {tested['accuracy']:.2%} of 10,000 images\n" in printed
    assert tested["images"] == sum(map(sum, tested["confusion_matrix"])) == 10_000
    assert tested["accuracy"] == np.trace(tested["confusion_matrix"]) / 10_000
    assert 0.955 < tested["accuracy"] < 0.985  # docs/results/accuracy.md has the spread over seeds

    # model.pth, loaded as in the guide, has the same accuracy
    model = SimpleNN()
    model.load_state_dict(torch.load(logs / "version_0" / "model.pth", weights_only=True))
    images, labels = mnist.load(tmp_path / "data", train=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        # in the command's batches, as a CPU may round others otherwise
        guesses = torch.cat(
            [model(Normalization()(batch.unsqueeze(1))).argmax(dim=1) for batch in torch.split(images, 64)]
        )
    assert (guesses == labels).sum().item() == round(tested["accuracy"] * 10_000)

    forked("validate", cwd=tmp_path)
    validated = json.loads((logs / "version_0" / "validate_best" / "metrics.json").read_text())
    assert f"accuracy  {validated['accuracy']:.2%} on the validation images (best checkpoint, after " in summary
    assert validated["images"] == 5_000

    forked("predict", cwd=tmp_path)
    with (logs / "version_0" / "predict_best" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "class", "guess", "probability", *(f"p{digit}" for digit in range(10))]
    assert [int(row["index"]) for row in rows] == list(range(10_000))
    assert sum(row["class"] == row["guess"] for row in rows) == round(tested["accuracy"] * 10_000)
    assert all(abs(sum(float(row[f"p{digit}"]) for digit in range(10)) - 1) < 1e-4 for row in rows)

    resumed = forked("fit", "--ckpt_path", "last", "--trainer.max_epochs", "6", cwd=tmp_path)
    assert "checkpoint  lightning_logs/version_0/checkpoints/last.ckpt (5 epochs done, step 4,300)\n" in resumed
    assert "Epoch 5: 860 batches" in resumed
    assert files(logs / "version_1") == RUN


def test_two_runs_at_once(tmp_path: Path, data_dir: Path) -> None:
    both = [Forked("fit", "--config=smoke.yaml", f"--data.data_dir={data_dir}", cwd=tmp_path) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert files(tmp_path) == {f"lightning_logs/version_{number}/{name}" for number in (0, 1) for name in RUN}
