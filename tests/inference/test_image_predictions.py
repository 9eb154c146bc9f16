"""The predictions of `predict --images`: the files, and the printed table."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

import own_digits
from mnist_amp.inference.image_predictions import ImagePredictions
from mnist_amp.inference.out_of_distribution import Reference
from tests.conftest import Refused, Run, files
from tests.inference.conftest import digits_of, rows


def test_of_many_images_those_with_a_note_are_printed(
    predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SHEET", 20)
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SURE", 0.0)
    monkeypatch.setattr(Reference, "of", lambda *_: None)  # no image is unlike the training images
    images, digits = digits_of(data_dir, 31)
    folder = own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    Image.new("L", (9, 9)).save(folder / "blank.png")
    printed = predict("--images", "own")
    lines = printed[printed.index("\nfile ") :].splitlines()
    assert lines[2:] == [
        "own/blank.png                      no ink: nothing stands out from the background",
        "",
        "images       32 (0 with a note, 1 not scored)",
        "temperature  none (fewer than 100 validation images could be scored)",
        "files        lightning_logs/predict/version_0/ (predictions.csv, predictions.png, predictions-2.png)",
    ]
    assert files(Path("lightning_logs/predict/version_0")) == {
        "predictions.csv",
        "predictions.png",
        "predictions-2.png",
    }


def test_images_beyond_the_limit_of_batches_have_a_note(predict: Run, data_dir: Path) -> None:
    images, digits = digits_of(data_dir, 5)
    own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    predict("--images", "own", "--data.batch_size=2", "--trainer.limit_predict_batches=2")
    assert [bool(row["guess"]) for row in rows()] == [True] * 4 + [False]
    assert rows()[4]["note"] == "not scored: trainer.limit_predict_batches is too low"


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(
    predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
        # the results are printed if they can't be written
        assert "images       1 (0 with a note, 0 not scored)\n" in capsys.readouterr().out
    assert sorted(path.name for path in Path("lightning_logs/predict").iterdir()) == ["version_0", "version_1"]


def test_folders_named_by_class_give_the_accuracy(predict: Run, data_dir: Path) -> None:
    """An image that is not read counts as wrong; other files in the folders are counted and named."""
    images, digits = digits_of(data_dir, 12)
    for index, (image, digit) in enumerate(zip(images, digits.tolist(), strict=True)):
        Path("own", str(digit)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"own/{digit}/{index}.png")
    Image.new("L", (9, 9)).save(f"own/{digits[0]}/blank.png")
    Path("own/notes.txt").write_text("written in May\n", encoding="utf-8")
    printed = predict("--images", "own")
    table = rows()
    assert [row["class"] for row in table] == [Path(row["file"]).parent.name for row in table]
    right = sum(row["guess"] == row["class"] for row in table)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"accuracy {right / 13:.2%} of 13 images with a known class (1 not read as one image)" in lines
    assert "left out 1 file: own/notes.txt (not an image in a known format)" in lines
    assert {"confusion_matrix.png", "misclassified.png"} <= files(Path("lightning_logs/predict/version_0"))


def test_each_digit_has_a_row(predict: Run, data_dir: Path) -> None:
    images, _ = digits_of(data_dir, 3)
    page = Image.new("L", (280, 200), 255)
    for image, place in zip(images, ((8, 8), (98, 8), (8, 108)), strict=True):
        page.paste(ImageOps.invert(Image.fromarray(image).resize((84, 84))), place)
    blank = Image.new("L", page.size, 255)
    page.save("two.tif", save_all=True, append_images=[blank])
    printed = predict("--images", "two.tif")
    table = rows()
    where = [(row["file"], row["page"], row["row"], row["digit"]) for row in table]
    assert where == [
        ("two.tif", *place) for place in (("1", "1", "1"), ("1", "1", "2"), ("1", "2", "3"), ("2", "", ""))
    ]
    first, second, third, _ = (row["guess"] for row in table)
    assert [row["number"] for row in table] == [f"{first}{second}"] * 2 + ["", ""]
    assert f"two.tif, page 1  {first}{second} {third} " in printed
    assert table[3]["note"] == "no ink: nothing stands out from the background"


def test_digits_in_photographs_have_the_stricter_threshold(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def distances(self: Reference, images: Tensor, guesses: Tensor, are_photographs: Tensor) -> Tensor:
        return torch.where(are_photographs, 1.5, 0.5)

    monkeypatch.setattr(Reference, "distances", distances)
    drawn = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(drawn).line([(60, 50), (130, 50), (90, 150)], 20, 12)
    noise = np.random.default_rng(0).normal(0, 3, (200, 200))
    Image.fromarray((0.9 * np.asarray(drawn) + noise).clip(0, 255).astype(np.uint8)).save("photo.png")
    drawn.save("drawn.png")
    predict("--images", "drawn.png", "photo.png")
    assert [(row["distance"], "unlike the training images" in row["note"]) for row in rows()] == [
        ("0.500", False),
        ("1.500", True),
    ]


def test_a_table_of_pixels_has_a_submission_for_kaggle(predict: Run, data_dir: Path) -> None:
    """A row that can't be read has the label 0, and that is reported; with rows that are left out there is none."""
    images, _ = digits_of(data_dir, 4)
    head = ",".join(f"pixel{index}" for index in range(784))
    lines = [",".join(map(str, image.flatten().tolist())) for image in [*images, np.zeros((28, 28), np.uint8)]]
    Path("test.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    printed = predict("--images", "test.csv")
    assert "submission.csv)" in printed
    assert "1 row without a guess: the label in submission.csv is 0\n" in printed
    guesses = [row["guess"] or "0" for row in rows()]
    wanted = "ImageId,Label\r\n" + "".join(f"{row},{guess}\r\n" for row, guess in enumerate(guesses, 1))
    assert Path("lightning_logs/predict/version_0/submission.csv").read_bytes() == wanted.encode()
    printed = predict("--images", "test.csv", "--data.batch_size=2", "--trainer.limit_predict_batches=1")
    assert "submission" not in printed


def test_a_table_that_can_not_be_read_has_no_submission(predict: Run, capsys: pytest.CaptureFixture[str]) -> None:
    head = ",".join(f"pixel{index}" for index in reversed(range(784)))
    Path("test.csv").write_text("\n".join([head, *[",".join(["0"] * 784)] * 5]) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        predict("--images", "test.csv")
    printed = capsys.readouterr()
    assert printed.err.endswith(
        "mnist-amp: error: 1 table could not be read; test.csv: the column pixel782 comes after pixel783, but the "
        "pixels must be row by row; sort the columns.\n"
    )
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert {"images 0 (0 with a note, 0 not scored)", "not read 1 table"} <= set(lines)
    assert files(Path("lightning_logs/predict/version_0")) == {"predictions.csv", "predictions.png"}


def test_images_are_saved_by_guess_or_by_their_known_class(
    predict: Run, refused: Refused, kept: Path, data_dir: Path
) -> None:
    images, digits = digits_of(data_dir, 4)
    own_digits.written(images[:3], digits[:3].numpy(), "as PNG files", Path("own"))
    Path("known/8").mkdir(parents=True)
    Image.fromarray(images[3]).save("known/8/a.png")
    Image.new("L", (9, 9)).save("own/blank.png")
    printed = predict("--images", "own", "known", "--save_images", "mine")
    saved = {*files(Path("mine")), *files(Path("mine_check"))}
    wanted = {f"{row['guess']}/{at:04}-{Path(row['file']).stem}.png" for at, row in enumerate(rows()[:3], 1)}
    assert saved == {*wanted, "8/0005-a.png"}
    assert {path.name for path in Path("mine").iterdir()} == set("0123456789")
    noted = len(files(Path("mine_check")))
    assert f"mine/ ({4 - noted} image" in printed
    found = next(path for path in (Path("mine/8/0005-a.png"), Path("mine_check/8/0005-a.png")) if path.exists())
    np.testing.assert_array_equal(np.asarray(Image.open(found)), images[3])
    assert refused("predict", f"--ckpt_path={kept}", "--images", "own", "--save_images", "mine") == (
        "mnist-amp: error: mine is not empty. Name a new folder with --save_images, so that no image that you have "
        "moved is overwritten.\n"
    )
