"""The file that the callback of `predict` writes, and its text."""

import csv
import math
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from mnist_amp.errors import RequestError
from mnist_amp.reporting.prediction_writer import PredictionWriter
from tests.conftest import files
from tests.reporting.scoring import Images, Model


def test_predictions_are_written_in_the_order_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "predict_best"
    trainer = Trainer(accelerator="cpu", callbacks=[PredictionWriter(folder)], logger=False, enable_progress_bar=False)
    trainer.predict(Model(), datamodule=Images(), return_predictions=False)
    assert files(folder) == {"predictions.csv"}
    with (folder / "predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [
        "index",
        "class",
        "guess",
        "probability",
        "p0",
        "p1",
        "p2",
        "p3",
        "p4",
        "p5",
        "p6",
        "p7",
        "p8",
        "p9",
    ]
    assert [row[:3] for row in rows] == [["0", "3", "3"], ["1", "1", "1"], ["2", "4", "9"], ["3", "1", "7"]]
    guess, other = (f"{math.exp(logit) / (9 + math.exp(2)):.6f}" for logit in (2, 0))
    assert rows[2][3:] == [guess] + [other] * 9 + [guess]
    assert capsys.readouterr().out.endswith(
        f"images       4\ntemperature  none (no validation images)\nfiles        {folder}/ (predictions.csv)\n"
    )


def test_names_of_any_kind(tmp_path: Path) -> None:
    class Named(Images):
        classes = ("a", "b, c", 'd "e"', "crane", "crane", "f", "g", "h\n", "i", "j k")

    folder = tmp_path / "predict_best"
    trainer = Trainer(accelerator="cpu", callbacks=[PredictionWriter(folder)], logger=False, enable_progress_bar=False)
    trainer.predict(Model(), datamodule=Named(), return_predictions=False)
    with (folder / "predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[4:] == ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"]
    assert [row[1:3] for row in rows] == [
        ["crane (3)", "crane (3)"],
        ["b, c", "b, c"],
        ["crane (4)", "j k"],
        ["b, c", "h\\n"],
    ]


def test_a_folder_that_can_not_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = PredictionWriter(tmp_path / "file" / "predict_best")
    trainer = Trainer(accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False)
    with pytest.raises(RequestError) as error:
        trainer.predict(Model(), datamodule=Images(), return_predictions=False)
    assert str(error.value) == (
        f"the predictions can't be written to {tmp_path}/file/predict_best: {tmp_path}/file is not writable. Copy the "
        "checkpoint to another folder, and name it with --ckpt_path."
    )
    assert writer.count == 0
