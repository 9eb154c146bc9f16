"""The predictions of `predict --images`: the files, and the printed table."""

import signal
from pathlib import Path

import pytest
from PIL import Image

import own_digits
from mnist_amp.inference.image_predictions import ImagePredictions
from tests.conftest import Run, files
from tests.inference.conftest import digits_of, rows


def test_of_many_images_those_with_a_note_are_printed(
    predict: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SHEET", 20)
    monkeypatch.setattr("mnist_amp.inference.image_predictions.SURE", 0.0)
    images, digits = digits_of(data_dir, 31)
    folder = own_digits.written(images, digits.numpy(), "as PNG files", Path("own"))
    Image.new("L", (9, 9)).save(folder / "blank.png")
    printed = predict("--images", "own")
    lines = printed[printed.index("\nfile ") :].splitlines()
    assert lines[2:] == [
        "own/blank.png                      no ink: nothing stands out from the background",
        "",
        "images  32 (0 with a note, 1 not scored)",
        "files   lightning_logs/predict/version_0/ (predictions.csv, predictions.png, predictions-2.png)",
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
        assert capsys.readouterr().out.endswith(" 0 not scored)\n")
    assert sorted(path.name for path in Path("lightning_logs/predict").iterdir()) == ["version_0", "version_1"]
