"""The files of `validate`, `test` and `predict`."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Run, files

SMOKE = ("--config", "configs/smoke.yaml")
FOLDER = Path("lightning_logs/version_0")


@pytest.mark.drawn
def test_the_files_that_each_evaluation_writes(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    before = files(FOLDER)
    report = {"metrics.json", "confusion_matrix.png", "misclassified.png", "reliability.png"}
    expected = {"validate": report, "test": report, "predict": {"predictions.csv"}}
    for subcommand, names in expected.items():
        run(subcommand, "--ckpt_path=last")
        assert files(FOLDER) - before == {f"{subcommand}_last/{name}" for name in names}
        before = files(FOLDER)
    recorded = json.loads((FOLDER / "test_last" / "metrics.json").read_text())
    assert recorded["checkpoint"] == str(FOLDER / "checkpoints" / "last.ckpt")
    assert (recorded["epochs"], recorded["step"], recorded["precision"]) == (1, 8, "bf16-mixed")


def test_no_evaluation_replaces_the_report_of_another(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    before = files(FOLDER)
    commands = {
        "test_best": ("test",),
        "test_best_32-true": ("test", "--trainer.precision=32-true"),
        "test_best_bf16-true": ("test", "--trainer.precision=bf16-true"),
        "test_best_128-images": ("test", "--trainer.limit_test_batches=2"),
        "test_best_32-true_64-images": ("test", "--trainer.precision=32-true", "--trainer.limit_test_batches=1"),
        "validate_best_64-images": ("validate", "--trainer.limit_val_batches=1"),
        "predict_best": ("predict",),
        "predict_best_64-images": ("predict", "--trainer.limit_predict_batches=1"),
        "predict_best_32-true": ("predict", "--trainer.precision=32-true"),
    }
    written: dict[str, str] = {}
    for _ in range(2):  # the same report is replaced
        for name, args in commands.items():
            printed = run(*args)
            assert f" {FOLDER / name}/ (" in printed
            main_file = FOLDER / name / ("predictions.csv" if args[0] == "predict" else "metrics.json")
            assert written.setdefault(name, main_file.read_text()) == main_file.read_text()
    assert {path.parts[0] for path in map(Path, files(FOLDER) - before)} == set(commands)
    images = {name: json.loads(text)["images"] for name, text in written.items() if "predict" not in name}
    assert images == {
        "test_best": 10_000,
        "test_best_32-true": 10_000,
        "test_best_bf16-true": 10_000,
        "test_best_128-images": 128,
        "test_best_32-true_64-images": 64,
        "validate_best_64-images": 64,
    }


def test_a_checkpoint_that_has_changed_gets_a_report_of_its_own(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    limits = ("--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt", "--trainer.limit_test_batches=1")
    run("test", *limits)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    shutil.copy("lightning_logs/version_1/checkpoints/last.ckpt", FOLDER / "checkpoints")
    run("test", *limits)
    steps = [json.loads(path.read_text())["step"] for path in sorted(FOLDER.glob("test_last*/metrics.json"))]
    assert steps == [8, 16]
