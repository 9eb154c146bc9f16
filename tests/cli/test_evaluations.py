"""The files of `validate`, `test` and `predict`."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run, files

SMOKE = ("--config", "configs/smoke.yaml")
FOLDER = Path("lightning_logs/version_0")


@pytest.mark.drawn
def test_the_files_that_each_evaluation_writes(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    before = files(FOLDER)
    report = {"metrics.json", "confusion_matrix.png", "misclassified.png"}
    expected = {"validate": report, "test": report, "predict": {"predictions.csv"}}
    for subcommand, names in expected.items():
        run(subcommand, "--ckpt_path=last")
        assert files(FOLDER) - before == {f"{subcommand}_last/{name}" for name in names}
        before = files(FOLDER)
    recorded = json.loads((FOLDER / "test_last" / "metrics.json").read_text())
    assert recorded["checkpoint"] == str(FOLDER / "checkpoints" / "last.ckpt")
    assert (recorded["epochs"], recorded["step"], recorded["precision"]) == (1, 8, "bf16-mixed")
