"""`mnist-amp profile`, on its first few steps."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F

from mnist_amp.__main__ import main
from mnist_amp.measuring import profile, step_profile
from mnist_amp.measuring.profile_records import Spread, StepTimes
from mnist_amp.reporting import charts
from tests.conftest import Refused, Run, files
from tests.forked import Forked

QUICK = ("--steps=3", "--warmup=1", "--data.val_size=50")
FOLDER = Path("lightning_logs/profile/version_0")
FILES = {f"{FOLDER}/{name}" for name in ("results.json", "report.md", "report.html", "profile.png", "gradients.png")}
PARTS = ["waiting for data", "transfer", "forward", "loss", "training_step", "backward", "optimizer", "the loop itself"]
SCALED = [*PARTS[:6], "unscale", "optimizer", "scaler update", "the loop itself"]


def results(root: Path = Path()) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / FOLDER / "results.json").read_text())
    return found


def operations(record: dict[str, Any], *parts: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in record["operations"] if row["part"] in parts]


def layers(record: dict[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in record["layers"]]


def test_times_are_summed_up_by_part() -> None:
    marked = [{"forward": 6_000, "the loop itself": 4_000}, {"the loop itself": 30_000}]
    assert step_profile.step_times([{"the loop itself": 16_000}] * 3, marked) == StepTimes(
        step=Spread(mean=20e-6, median=20e-6, p10=12e-6, p90=28e-6, nanoseconds=40_000, share=1.0),
        unmarked_step=Spread(mean=16e-6, median=16e-6, p10=16e-6, p90=16e-6, nanoseconds=48_000, share=1.0),
        marks_cost=1.25,
        parts={
            "forward": Spread(mean=3e-6, median=3e-6, p10=0.6e-6, p90=5.4e-6, nanoseconds=6_000, share=0.15),
            "the loop itself": Spread(
                mean=17e-6, median=17e-6, p10=6.6e-6, p90=27.4e-6, nanoseconds=34_000, share=0.85
            ),
        },
    )


@pytest.mark.drawn
def test_fp32(run: Run, tmp_path: Path) -> None:
    cross_entropy = F.cross_entropy
    printed = run("profile", *QUICK, "--trainer.precision=32-true")
    record = results()
    assert files(tmp_path) == FILES
    assert F.cross_entropy is cross_entropy
    assert [part["part"] for part in record["parts"]] == PARTS
    assert all(part["nanoseconds"] > 0 for part in record["parts"])
    assert sum(part["nanoseconds"] for part in record["parts"]) == record["step"]["nanoseconds"]
    assert f"\nfiles      {FOLDER}/ (report.html, report.md, results.json, 2 charts)\n" in printed
    assert layers(record) == [
        ("model.fc1", "Linear", "float32", "float32", "float32"),
        ("model.relu", "ReLU", "", "float32", "float32"),
        ("model.fc2", "Linear", "float32", "float32", "float32"),
    ]
    assert operations(record, "forward", "loss", "unscale", "scaler update") == [
        ("forward", "addmm", "float32", "float32", 2),
        ("forward", "relu", "float32", "float32", 1),
        ("loss", "_log_softmax", "float32", "float32", 1),
        ("loss", "nll_loss_forward", "float32, int64", "float32", 1),
    ]
    gradients = record["gradients"]
    values = 784 * 128 + 128 + 128 * 10 + 10
    assert gradients["steps"] == 20
    assert sum(gradients["exponents"].values()) + gradients["zeros"] == 20 * values
    assert record["kernels"] is None
    assert record["command"].startswith("mnist-amp profile --data.data_dir=")
    assert record["command"].endswith("--steps=3 --warmup=1 --data.val_size=50 --trainer.precision=32-true")
    assert (record["precision"], record["requested_precision"], record["fused"]) == ("32-true", "32-true", True)
    assert (record["settings"]["data"]["val_size"], record["settings"]["seed_everything"]) == (50, 42)


def test_mixed_precision(run: Run) -> None:
    printed = run("profile", *QUICK)
    record = results()
    assert "\nprecision  bf16-mixed (requested: 16-mixed)\n" in printed
    assert [part["part"] for part in record["parts"]] == PARTS
    assert layers(record) == [
        ("model.fc1", "Linear", "float32", "float32", "bfloat16"),
        ("model.relu", "ReLU", "", "bfloat16", "bfloat16"),
        ("model.fc2", "Linear", "float32", "bfloat16", "bfloat16"),
    ]
    assert operations(record, "forward", "loss") == [
        ("forward", "_to_copy", "float32", "bfloat16", 5),  # the images, two weights and two biases
        ("forward", "addmm", "bfloat16", "bfloat16", 2),
        ("forward", "relu", "bfloat16", "bfloat16", 1),
        ("loss", "_to_copy", "bfloat16", "float32", 1),
        ("loss", "_log_softmax", "float32", "float32", 1),
        ("loss", "nll_loss_forward", "float32, int64", "float32", 1),
    ]
    assert ("backward", "mm", "bfloat16", "bfloat16", 3) in operations(record, "backward")
    assert ("backward", "_to_copy", "bfloat16", "float32", 4) in operations(record, "backward")
    assert ("optimizer", "_fused_adam_", "float32", "", 1) in operations(record, "optimizer")


def test_a_scaler_has_its_own_parts(run: Run) -> None:
    run("profile", *QUICK, "--config=fp16-cpu.yaml")
    record = results()
    assert [part["part"] for part in record["parts"]] == SCALED
    assert all(part["nanoseconds"] > 0 for part in record["parts"])
    assert sum(part["nanoseconds"] for part in record["parts"]) == record["step"]["nanoseconds"]
    assert (record["precision"], record["requested_precision"], record["fused"]) == ("16-mixed", None, True)
    assert ("model.fc2", "Linear", "float32", "float16", "float16") in layers(record)
    assert ("loss", "mul", "float32", "float32", 1) in operations(record, "loss")  # multiplied by the loss scale
    check = "_amp_foreach_non_finite_check_and_unscale_"
    assert [row[1:] for row in operations(record, "unscale") if row[1] == check] == [(check, "float32", "", 1)]
    assert operations(record, "scaler update")[-1][1:] == ("_amp_update_scale_", "float32, int32", "float32", 1)


def test_measuring_spans_the_ends_of_epochs(run: Run) -> None:
    """The fit validates, accumulates and clips gradients, and has a schedule; its optimizer is not fused."""
    run(
        *("profile", *QUICK, "--steps=7", "--config=fp16-cpu.yaml", "--trainer.limit_train_batches=5"),
        *("--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=1", "--trainer.val_check_interval=2"),
        *("--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--trainer.max_epochs=1", "--trainer.max_steps=2"),
        "--optimizer.fused=false",
    )
    record = results()
    assert [part["part"] for part in record["parts"]] == SCALED
    assert record["fused"] is False
    assert 20 <= record["gradients"]["steps"] <= 28  # an epoch of 5 batches has 3 steps
    assert "| unscale | " in (FOLDER / "report.md").read_text()


def test_a_busy_machine_is_warned_of(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "BUSY", 0)
    main(["profile", *QUICK])
    assert capsys.readouterr().err == (
        "mnist-amp: timing 3 steps with marks and as many without, after 1 warm-up step\n"
        "mnist-amp: warning: some steps took much longer than most: the machine is busy with other work, so measure "
        "again.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps=0",), "steps is 0; it must be at least 1. See mnist-amp profile --help."),
        (("--warmup=-1",), "warmup is -1; it must be at least 0. See mnist-amp profile --help."),
        (
            ("--model.steps_per_execution=4",),
            "model.steps_per_execution is 4, but profile measures the parts of single steps. Leave it at auto.",
        ),
        (
            ("--trainer.devices=2",),
            "profile measures one device; leave trainer.devices and trainer.num_nodes at 1.",
        ),
        (
            ("--step=3",),
            "there is no option step (did you mean steps?). See mnist-amp profile --help.",
        ),
    ],
)
def test_wrong_requests_are_refused(refused: Refused, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert refused("profile", *arguments) == f"mnist-amp: error: {message}\n"
    assert files(tmp_path) == set()


def test_a_fit_that_ends_early_is_an_error(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stops = ("EarlyStopping", "monitor=train_loss", "stopping_threshold=100", "check_on_train_epoch_end=true")
    options = [f"--trainer.callbacks{'.' if index else '='}{value}" for index, value in enumerate(stops)]
    with pytest.raises(SystemExit) as exit_info:
        run("profile", *QUICK, "--trainer.limit_train_batches=2", *options)
    assert exit_info.value.code == 1
    assert capsys.readouterr().err.endswith(
        "mnist-amp: error: the fit ended before it was measured; leave out the callback that ends it.\n"
    )
    assert files(tmp_path) == set()


def test_a_failed_write_leaves_no_folder_and_prints_the_results(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(charts, "gradient_histogram", full)
    with pytest.raises(SystemExit) as exit_info:
        run("profile", *QUICK)
    assert exit_info.value.code == 1
    assert list((tmp_path / "lightning_logs" / "profile").iterdir()) == []
    printed = capsys.readouterr().out
    assert "\nmarks      make the median step" in printed
    assert "\nfiles " not in printed


def test_ctrl_c_leaves_no_files(tmp_path: Path, data_dir: Path) -> None:
    process = Forked("profile", "--warmup=1000000", f"--data.data_dir={data_dir}", cwd=tmp_path)
    while not process.stderr.endswith("\n"):
        assert process.poll() is None
        time.sleep(0.01)
    before = process.stderr
    assert before.startswith("mnist-amp: timing 200 steps with marks")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr == f"{before}mnist-amp: stopped by SIGINT at once.\n"
    assert files(tmp_path) == set()


@pytest.mark.cuda
def test_cuda(run: Run) -> None:
    run("profile", *QUICK, "--trainer.accelerator=gpu")
    record = results()
    assert [part["part"] for part in record["parts"]] == SCALED
    assert sum(part["nanoseconds"] for part in record["parts"]) == record["step"]["nanoseconds"]
    assert {kernel["tensor_cores"] for kernel in record["kernels"]} == {True, False}
    assert "## Which kernels used tensor cores\n" in (FOLDER / "report.md").read_text()
