"""The files of `validate`, `test` and `predict`."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mnist_amp.inference.out_of_distribution import Reference
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


@pytest.mark.parametrize(
    ("args", "is_known"),
    [
        (("--ckpt_path=best",), True),
        (("--ckpt_path=best", "--seed_everything=5"), False),
        (("--ckpt_path=best", "--data.val_size=6000"), False),
        ((f"--ckpt_path={FOLDER}/model.pth",), False),  # weights alone do not tell what they were trained on
    ],
)
def test_the_temperature_is_unknown_if_the_validation_images_may_have_been_trained_on(
    args: tuple[str, ...], is_known: bool, run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    monkeypatch.setattr(Reference, "of", lambda network, data: found.append(data.val_is_unseen))
    fitted(*SMOKE)
    Image.new("L", (28, 28)).save("a.png")
    run("predict", "--images=a.png", "--preprocess=none", *args)
    assert found == [is_known]
    printed = run("predict", "--trainer.limit_predict_batches=1", *args)
    seen = "temperature  none (the network may have been trained on the validation images)\n"
    assert ("temperature  " in printed, seen in printed) == (True, not is_known)
    commands = ("test",) if len(args) == 2 else ("test", "validate")  # such a validation is refused
    for command in commands:
        before = files(Path())
        run(command, *args, f"--trainer.limit_{command.replace('validate', 'val')}_batches=2")
        path = next(Path(name) for name in files(Path()) - before if name.endswith("metrics.json"))
        recorded = json.loads(path.read_text())
        assert (recorded["temperature"] is not None) == is_known
        assert (recorded["calibration_error_at_temperature"] is not None) == is_known


def test_a_network_that_was_trained_on_all_images_has_no_temperature(run: Run) -> None:
    run("fit", "--config=configs/guide.yaml", *SMOKE)
    shutil.copy(FOLDER / "model.pth", "alone.pth")
    for path in ("best", "alone.pth"):
        run("test", f"--ckpt_path={path}", "--trainer.limit_test_batches=2")
    recorded = [json.loads(Path(name).read_text()) for name in files(Path()) if name.endswith("metrics.json")]
    assert [each["temperature"] for each in recorded] == [None, None]
