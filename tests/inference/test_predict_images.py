"""`mnist-amp predict --images`, whole commands."""

import csv
import functools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import own_digits
from mnist_amp.data import mnist
from mnist_amp.inference.image_predictions import ImagePredictions
from tests.conftest import Refused, Run, command, files

COUNT = 150  # test images


@pytest.fixture
def predict(run: Run, kept: Path, checkpoint: dict[str, Any]) -> Run:
    """Run `predict` from the checkpoint of a short run, which guesses badly."""
    return functools.partial(run, "predict", f"--ckpt_path={kept}")


def rows(number: int = 0) -> list[dict[str, str]]:
    with Path(f"lightning_logs/predict/version_{number}/predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digits_of(data_dir: Path, count: int) -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", torch.Tensor]:
    """Return seeded test images and their digits."""
    images, digits = mnist.load(data_dir, train=False)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images[chosen].numpy(), digits[chosen]


def test_accuracy_is_that_of_the_test_images(run: Run, data_dir: Path) -> None:
    """`benchmarks/own_digits.py` measures the same on all 10,000."""
    run("fit", "--trainer.max_epochs=1", "--trainer.logger=false")
    images, digits = digits_of(data_dir, COUNT)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("plain"))
    run("predict", "--images", "plain", "--preprocess", "none")
    plain = [row["guess"] for row in rows()]
    assert sum(guess == str(int(digit)) for guess, digit in zip(plain, digits, strict=True)) >= 0.88 * COUNT
    for place, variant in enumerate(own_digits.VARIANTS):
        own_digits.written(images, digits.numpy(), variant, Path("variants", str(place)))
    run("predict", "--images", "variants")
    guesses = [row["guess"] for row in rows(1)]
    truth = [str(int(digit)) for digit in digits]
    score = sum(map(str.__eq__, plain, truth))
    for place, variant in enumerate(own_digits.VARIANTS):
        found = guesses[COUNT * place : COUNT * (place + 1)]
        same = sum(map(str.__eq__, found, plain))
        exact = variant in ("as PNG files", "inverted: dark on light", "in two colours")
        assert same >= COUNT * (0.99 if exact or variant.startswith("padded") else 0.94), variant
        assert abs(sum(map(str.__eq__, found, truth)) - score) <= (2 if exact else 8), variant


def test_two_processes(checkpoint: dict[str, Any], kept: Path, tmp_path: Path, data_dir: Path) -> None:
    """Each scores every other batch, and the first writes it all, with a file that can't be read, too."""
    images, digits = digits_of(data_dir, 5)
    own_digits.written(images, digits.numpy(), "as PNG files", tmp_path / "own")
    (tmp_path / "own" / "torn.png").write_bytes(b"torn")
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")
    command("predict", f"--ckpt_path={kept}", "--images=own", *ddp, cwd=tmp_path, status=1)
    found = rows()
    assert [row["file"] for row in found] == [*(f"own/{name}" for name in sorted(files(tmp_path / "own")))]
    assert [bool(row["guess"]) for row in found] == [True] * 5 + [False]


def test_few_pictures(predict: Run, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, _ = digits_of(data_dir, 2)
    Path("own").mkdir()
    for name, image in zip(("a.png", "b.bmp"), images, strict=True):
        Image.fromarray(image).save(Path("own", name))
    Image.new("L", (50, 50), 255).save("own/blank.gif")
    Path("own/torn.png").write_bytes(Path("own/a.png").read_bytes()[:100])
    with pytest.raises(SystemExit) as exit_info:
        predict("--images", "own", "nothing.tif")
    assert exit_info.value.code == 1
    said = capsys.readouterr()
    assert said.err == (
        "mnist-amp: error: 2 files could not be read; own/torn.png: it can't be read: image file is truncated. "
        "The others are scored.\n"
    )
    table = rows()
    assert list(table[0]) == ["file", "guess", "probability", *(f"p{digit}" for digit in range(10)), "note"]
    assert [(row["file"], row["note"]) for row in table] == [
        ("own/a.png", "unsure"),
        ("own/b.bmp", "unsure"),
        ("own/blank.gif", "no ink: nothing stands out from the background"),
        ("own/torn.png", "it can't be read: image file is truncated"),
        ("nothing.tif", "there is no such file"),
    ]
    for row in table[:2]:
        probabilities = [float(row[f"p{digit}"]) for digit in range(10)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities[int(row["guess"])] == max(probabilities) == float(row["probability"]) < 0.8
    assert {row[name] for row in table[2:] for name in ("guess", "probability", "p0", "p9")} == {""}
    assert files(Path("lightning_logs/predict")) == {"version_0/predictions.csv", "version_0/predictions.png"}
    lines = said.out[said.out.index("\nfile ") :].splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [
        ["own/a.png", table[0]["guess"]],
        ["own/b.bmp", table[1]["guess"]],
    ]
    assert lines[-2:] == [
        "pictures  5, 2 of them unsure, 3 not scored",
        "files     lightning_logs/predict/version_0/ (predictions.csv, predictions.png)",
    ]


def test_what_is_scored_is_what_preprocess_says(predict: Run, kept: Path, data_dir: Path) -> None:
    """As they are, the test images have the probabilities that `predict` gives them without --images."""
    predict()
    with (kept.parent / "predict_last" / "predictions.csv").open(encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))[:128]
    images, digits = (part[:128].numpy() for part in mnist.load(data_dir, train=False))
    own_digits.written(images, digits, "as PNG files", Path("own"))
    predict("--images", "own", "--preprocess=none")  # in two of the same batches, which are rounded in the same way
    found = rows()
    for name in ("guess", *(f"p{digit}" for digit in range(10))):
        assert [float(row[name]) for row in found] == pytest.approx([float(row[name]) for row in wanted], abs=2e-6)
    own_digits.written(images, digits, "inverted: dark on light", Path("inverted"))
    predict("--images", "inverted")
    assert [row["guess"] for row in rows(1)] == [row["guess"] for row in found]


def test_many_are_not_listed(predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SHEET", 20)
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SURE", 0.0)
    images, digits = digits_of(data_dir, 31)
    folder = own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    Image.new("L", (9, 9)).save(folder / "blank.png")
    said = predict("--images", "own")
    lines = said[said.index("\nfile ") :].splitlines()
    assert lines[2:] == [
        "own/blank.png                      no ink: nothing stands out from the background",
        "",
        "pictures  32, 0 of them unsure, 1 not scored",
        "files     lightning_logs/predict/version_0/ (predictions.csv, predictions.png, predictions-2.png)",
    ]
    assert files(Path("lightning_logs/predict/version_0")) == {
        "predictions.csv",
        "predictions.png",
        "predictions-2.png",
    }


def test_batches_that_are_left_out_are_said(predict: Run, data_dir: Path) -> None:
    images, digits = digits_of(data_dir, 5)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    predict("--images", "own", "--data.batch_size=2", "--trainer.limit_predict_batches=2")
    assert [bool(row["guess"]) for row in rows()] == [True] * 4 + [False]
    assert rows()[4]["note"] == "not scored: trainer.limit_predict_batches ends it before"


def test_nothing_is_overwritten_or_left(predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = digits_of(data_dir, 1)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    for number in range(2):
        predict("--images", "own", "--trainer.default_root_dir=.")
        assert len(rows(number)) == 1

    def full(self: ImagePredictions, path: Path) -> None:
        raise OSError(28, "No space left on device")

    def interrupted(self: ImagePredictions, path: Path) -> None:
        signal.raise_signal(signal.SIGINT)

    for instead, status in ((full, 1), (interrupted, 130)):
        monkeypatch.setattr(ImagePredictions, "_write_table", instead)
        with pytest.raises(SystemExit) as exit_info:
            predict("--images", "own")
        assert exit_info.value.code == status
    assert sorted(path.name for path in Path("lightning_logs/predict").iterdir()) == ["version_0", "version_1"]


def test_refused(refused: Refused, kept: Path, checkpoint: dict[str, Any]) -> None:
    assert "there is no run with a checkpoint under" in refused("predict", "--images", "own.png")
    assert refused("predict", "--ckpt_path=null") == (
        "mnist-amp: error: ckpt_path is null, but predict needs a checkpoint; leave it out for the newest run's best. "
        "See mnist-amp predict --help.\n"
    )
    predict = functools.partial(refused, "predict", f"--ckpt_path={kept}")
    assert predict("--images", "scans/*.png") == (
        "mnist-amp: error: scans/*.png matches no file; pictures end in .png, .jpg, .jpeg, .bmp, .gif, .tif, .tiff, "
        ".webp.\n"
    )
    nothing = "mnist-amp: error: no pictures are named to be scored: name files or folders with --images.\n"
    assert predict("--preprocess", "none") == nothing
    Path("empty.yaml").write_text("images: []\n", encoding="utf-8")
    assert predict("--config=empty.yaml") == nothing
    assert predict("--images", "own.png", "--preprocess", "crop") == (
        "mnist-amp: error: preprocess can't be crop; it takes mnist, none. See mnist-amp predict --help.\n"
    )
    assert not Path("lightning_logs").exists()


def test_from_a_file_and_the_environment(predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = digits_of(data_dir, 3)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    Path("own.yaml").write_text("images: [own]\npreprocess: none\n", encoding="utf-8")
    predict("--config", "own.yaml")
    monkeypatch.setenv("MNIST_AMP_IMAGES", "own")
    predict()
    assert [len(rows(number)) for number in (0, 1)] == [3, 3]
