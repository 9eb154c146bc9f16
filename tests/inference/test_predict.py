"""`mnist-amp predict`, with and without `--images`."""

import csv
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import own_digits
from mnist_amp.data import mnist
from mnist_amp.data.decoding import SUFFIXES
from mnist_amp.inference.out_of_distribution import Reference
from tests.conftest import Refused, Run, command, files
from tests.inference.conftest import digits_of, rows

COUNT = 150  # test images


def test_accuracy_is_that_of_the_test_images(run: Run, data_dir: Path) -> None:
    """`benchmarks/own_digits.py` measures the same on all 10,000."""
    run("fit", "--trainer.max_epochs=1", "--trainer.logger=false")
    images, digits = digits_of(data_dir, COUNT)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("plain"))
    run("predict", "--images", "plain", "--preprocess", "none")
    plain = [row["guess"] for row in rows()]
    assert sum(guess == str(int(digit)) for guess, digit in zip(plain, digits, strict=True)) >= 0.88 * COUNT
    for index, variant in enumerate(own_digits.VARIANTS):
        own_digits.written(images, digits.numpy(), variant, Path("variants", str(index)))
    run("predict", "--images", "variants")
    guesses = [row["guess"] for row in rows(1)]
    truth = [str(int(digit)) for digit in digits]
    score = sum(map(str.__eq__, plain, truth))
    for index, variant in enumerate(own_digits.VARIANTS):
        found = guesses[COUNT * index : COUNT * (index + 1)]
        same = sum(map(str.__eq__, found, plain))
        exact = variant in ("as PNG files", "inverted: dark on light", "in two colours")
        assert same >= COUNT * (0.99 if exact or variant.startswith("padded") else 0.94), variant
        assert abs(sum(map(str.__eq__, found, truth)) - score) <= (2 if exact else 8), variant


def test_two_processes(checkpoint: dict[str, Any], kept: Path, tmp_path: Path, data_dir: Path) -> None:
    """Each process scores every other batch, and the first writes all predictions. One file can't be read."""
    images, digits = digits_of(data_dir, 5)
    own_digits.written(images, digits.numpy(), "as PNG files", tmp_path / "own")
    (tmp_path / "own" / "torn.png").write_bytes(b"torn")
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")
    command("predict", f"--ckpt_path={kept}", "--images=own", *ddp, cwd=tmp_path, status=1)
    found = rows()
    assert [row["file"] for row in found] == [*(f"own/{name}" for name in sorted(files(tmp_path / "own")))]
    assert [bool(row["guess"]) for row in found] == [True] * 5 + [False]


def temperature_of(printed: str) -> float:
    return next(float(line.split()[1]) for line in printed.splitlines() if line.startswith("temperature "))


def test_preprocess_none_takes_images_as_they_are_and_mnist_converts_them(
    predict: Run, kept: Path, data_dir: Path
) -> None:
    """Without conversion, the test images have the probabilities that `predict` without --images gives them.

    Both are at the temperature of the validation images, whose rounded logits differ a little.
    """
    temperatures = [temperature_of(predict())]
    with (kept.parent / "predict_last" / "predictions.csv").open(encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))[:128]
    images, digits = (part[:128].numpy() for part in mnist.load(data_dir, train=False))
    own_digits.written(images, digits, "as PNG files", Path("own"))
    temperatures.append(temperature_of(predict("--images", "own", "--preprocess=none")))  # two of the same batches
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-3)
    found = rows()
    assert [row["guess"] for row in found] == [row["guess"] for row in wanted]
    cells, others = ([[float(row[f"p{digit}"]) for digit in range(10)] for row in table] for table in (found, wanted))
    at_same = np.array(others) ** (temperatures[0] / temperatures[1])
    np.testing.assert_allclose(cells, at_same / at_same.sum(axis=1, keepdims=True), atol=1e-4)
    own_digits.written(images, digits, "inverted: dark on light", Path("inverted"))
    predict("--images", "inverted")
    assert [row["guess"] for row in rows(1)] == [row["guess"] for row in found]


def test_wrong_requests_are_refused(refused: Refused, kept: Path, checkpoint: dict[str, Any]) -> None:
    assert "there is no run with a checkpoint under" in refused("predict", "--images", "own.png")
    assert refused("predict", "--ckpt_path=null") == (
        "mnist-amp: error: ckpt_path is null, but predict needs a checkpoint; leave it out for the newest run's best. "
        "See mnist-amp predict --help.\n"
    )
    predict = functools.partial(refused, "predict", f"--ckpt_path={kept}")
    assert predict("--images", "scans/*.png") == (
        f"mnist-amp: error: scans/*.png matches no file; images end in {', '.join(SUFFIXES)}.\n"
    )
    Image.new("L", (28, 28)).save("black.png")
    assert predict("--images", "black.png", "nothere") == (
        f"mnist-amp: error: nothere does not exist; images end in {', '.join(SUFFIXES)}.\n"
    )
    nothing = "mnist-amp: error: no images are given; name files or folders with --images.\n"
    assert predict("--preprocess", "none") == nothing
    Path("empty.yaml").write_text("images: []\n", encoding="utf-8")
    assert predict("--config=empty.yaml") == nothing
    assert predict("--images", "own.png", "--preprocess", "crop") == (
        "mnist-amp: error: preprocess can't be crop; it takes auto, mnist, resize, none. "
        "See mnist-amp predict --help.\n"
    )
    assert not Path("lightning_logs").exists()


def test_images_are_named_in_a_config_file_or_the_environment(
    predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, digits = digits_of(data_dir, 3)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    Path("own.yaml").write_text("images: [own]\npreprocess: none\n", encoding="utf-8")
    predict("--config", "own.yaml")
    monkeypatch.setenv("MNIST_AMP_IMAGES", "own")
    predict()
    assert [len(rows(number)) for number in (0, 1)] == [3, 3]


def test_unreadable_files_are_reported_and_the_others_are_scored(
    predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Reference, "of", lambda *_: None)  # the probabilities are not calibrated
    images, _ = digits_of(data_dir, 2)
    Path("own").mkdir()
    for name, image in zip(("a.png", "b.bmp"), images, strict=True):
        Image.fromarray(image).save(Path("own", name))
    Image.new("L", (50, 50), 255).save("own/blank.gif")
    Path("own/torn.png").write_bytes(Path("own/a.png").read_bytes()[:100])
    Path("other.tif").touch()
    with pytest.raises(SystemExit) as exit_info:
        predict("--images", "own", "other.tif")
    assert exit_info.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == (
        "mnist-amp: error: 2 images could not be read; own/torn.png: can't be read: image file is truncated. "
        "The others were scored, see lightning_logs/predict/version_0/predictions.csv.\n"
    )
    table = rows()
    probabilities = [f"p{digit}" for digit in range(10)]
    head = [
        "file",
        "page",
        "row",
        "digit",
        "class",
        "guess",
        "probability",
        *probabilities,
        "distance",
        "number",
        "note",
    ]
    assert list(table[0]) == head
    assert [(row["file"], row["note"]) for row in table] == [
        ("own/a.png", "unsure"),
        ("own/b.bmp", "unsure"),
        ("own/blank.gif", "no ink: nothing stands out from the background"),
        ("own/torn.png", "can't be read: image file is truncated"),
        ("other.tif", "not an image in a known format (PNG, JPEG, BMP, GIF, TIFF, WEBP, AVIF, HEIC)"),
    ]
    for row in table[:2]:
        found = [float(row[name]) for name in probabilities]
        assert sum(found) == pytest.approx(1, abs=1e-5)
        assert found[int(row["guess"])] == max(found) == float(row["probability"]) < 0.8
    assert {row[name] for row in table[2:] for name in ("guess", "probability", "p0", "p9")} == {""}
    assert files(Path("lightning_logs/predict")) == {"version_0/predictions.csv", "version_0/predictions.png"}
    lines = printed.out[printed.out.index("\nfile ") :].splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [
        ["own/a.png", table[0]["guess"]],
        ["own/b.bmp", table[1]["guess"]],
    ]
    assert lines[-3:] == [
        "images       5 (2 with a note, 3 not scored)",
        "temperature  none (fewer than 100 validation images could be scored)",
        "files        lightning_logs/predict/version_0/ (predictions.csv, predictions.png)",
    ]


def test_a_network_of_colour_images(run: Run, refused: Refused, tmp_path: Path) -> None:
    """The images are resized; the normalisation is that of the training."""
    colours = {"blue": (20, 30, 200), "red": (200, 20, 30)}
    for part, name in itertools.product(("train", "test"), colours):
        Path("photos", part, name).mkdir(parents=True)
        for number in range(12):
            size = (40 + number, 60)
            Image.new("RGB", size, colours[name]).save(f"photos/{part}/{name}/{number}.png")
    data = ("--data.folder=photos", "--data.image_size=16", "--data.channels=3", "--data.batch_size=4")
    run("fit", *data, "--network=CNN", "--optimizer.lr=0.01", "--trainer.max_epochs=8", "--data.mean=[0.4,0.1,0.4]")
    Image.new("RGBA", (90, 30), (210, 40, 20, 255)).save("mine.png")
    run("predict", "--images", "mine.png", "photos/test/blue/0.png")
    assert [row["guess"] for row in rows()] == ["red", "blue"]
    assert refused("predict", "--images", "mine.png", "--preprocess=mnist") == (
        "mnist-amp: error: preprocess is mnist, which is for images like those of MNIST, QMNIST, EMNIST, KMNIST, USPS, "
        "of 1 x 28 x 28, but the network takes images of photos of 3 x 16 x 16. Leave preprocess out, and the images "
        "are resized.\n"
    )
