"""`mnist-amp compare`, with small fits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mnist_amp.errors import RunError
from mnist_amp.measuring import compare
from mnist_amp.measuring.isolated_process import run_isolated
from tests.conftest import Refused, Run, files

SMALL = ("--hidden_dims=[8]", "--model.hidden_dim=8", "--batch_sizes=[64]", "--seconds=0.01", "--rounds=2", "--seeds=1")
QUICK = (*SMALL, "--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2")
FOLDER = Path("lightning_logs/compare/version_0")
WRITTEN = {"results.json", "report.md", "time.png", "memory.png", "accuracy.png", "loss.png"}


def results(folder: Path = FOLDER) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return record


def measured(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(cell[name] for name in ("kind", "precision", "number", "effective")) for cell in record["cells"]]


@pytest.mark.drawn
def test_compare_measures_each_precision(run: Run, tmp_path: Path) -> None:
    printed = run("compare", *QUICK, "--scaler.init_scale=16", "--precisions=[32-true,bf16-mixed,16-mixed,fp16-cpu]")
    assert files(tmp_path) == {f"{FOLDER}/{name}" for name in WRITTEN}
    speeds = [
        ("32-true", "32-true"),
        ("bf16-mixed", "bf16-mixed"),
        ("16-mixed", "bf16-mixed"),
        ("fp16-cpu", "16-mixed"),
    ]
    distinct = [pair for pair in speeds if pair[0] != "16-mixed"]
    record = results()
    assert measured(record) == [
        *(("speed", precision, 0, effective) for precision, effective in speeds),
        *(("speed", precision, 1, effective) for precision, effective in distinct),
        *(("accuracy", precision, 42, effective) for precision, effective in distinct),
    ]
    assert (record["cells"][-1]["loss_scale"], record["cells"][-1]["skipped_steps"]) == (16.0, 0)
    assert "16-mixed ran as bf16-mixed here, so it is not listed separately.\n" in printed
    assert re.search(r"^fp16-cpu is .+ times as fast as 32-true \(.+\).* It is slow by design: ", printed, re.MULTILINE)


def test_a_failed_measurement_is_a_row_with_its_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def isolated(function: Any, config: Any, overrides: dict[str, Any], *args: Any) -> Any:
        if overrides["trainer.precision"] == "bf16-mixed":
            raise RunError("the GPU is out of memory")
        return run_isolated(function, config, overrides, *args)

    monkeypatch.setattr(compare, "run_isolated", isolated)
    printed = run("compare", *QUICK, "--precisions=[32-true,bf16-mixed]")
    assert [(cell["precision"], cell.get("error")) for cell in results()["cells"]] == [
        ("32-true", None),
        ("bf16-mixed", "the GPU is out of memory"),
        ("32-true", None),
        ("32-true", None),
    ]
    assert re.search(r"^bf16-mixed +- +8 +64 +failed +- +- +-$", printed, re.MULTILINE)
    assert "\nbf16-mixed with hidden_dim 8 and batch_size 64 failed: the GPU is out of memory\n" in printed


def test_a_comparison_without_any_measurement_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def isolated(*args: Any) -> Any:
        raise RunError("the GPU is out of memory")

    monkeypatch.setattr(compare, "run_isolated", isolated)
    with pytest.raises(SystemExit) as exit_info:
        run("compare", *QUICK)
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == "mnist-amp: error: nothing could be measured: the GPU is out of memory\n"


def test_a_stopped_comparison_resumes_where_it_stopped(run: Run, tmp_path: Path, data_dir: Path) -> None:
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    command = [
        sys.executable,
        "-m",
        "mnist_amp",
        "compare",
        *QUICK,
        "--rounds=200",
        "--precisions=[32-true,bf16-mixed]",
    ]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    wait_for(FOLDER / "results.json", process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    message = process.stderr.read()
    assert process.wait() == 130
    before = results()
    count = len(before["cells"])
    assert message == (
        f"mnist-amp: stopped by SIGINT after {count} measurement{'s' * (count > 1)}, saved in {FOLDER}. "
        f"Resume with: mnist-amp compare --resume {FOLDER}\n"
    )
    (FOLDER / "results.json").write_text(json.dumps({**before, "rounds": 2}))  # the rest in less time
    run("compare", "--resume=last")
    assert results()["cells"][:count] == before["cells"]
    assert len(results()["cells"]) == max(count, 4) + 2
    assert {path.name for path in FOLDER.iterdir()} == WRITTEN


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.is_file():
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--precisions=[32-true,8-mixed]",),
            "precisions has 8-mixed; it takes " + ", ".join(compare.PRECISIONS) + ".",
        ),
        (("--precisions=[32-true]",), "precisions needs at least two that differ."),
        (("--precisions=[32-true,32-true]",), "precisions needs at least two that differ."),
        (("--hidden_dims=[0]",), "hidden_dims has 0; it must be at least 1. See mnist-amp compare --help."),
        (("--batch_sizes=[64,-1]",), "batch_sizes has -1; it must be at least 1. See mnist-amp compare --help."),
        (("--batch_sizes=[60001]",), "batch_sizes has 60001, but there are 55,000 images to train on."),
        (("--rounds=0",), "rounds is 0; it must be at least 1. See mnist-amp compare --help."),
        (("--seeds=-1",), "seeds is -1; it must be at least 0. See mnist-amp compare --help."),
        (("--seconds=0",), "seconds is 0; it must be above 0. See mnist-amp compare --help."),
        (("--seconds=nan",), "seconds is nan; it must be above 0. See mnist-amp compare --help."),
        (("--seed_everything=true",), "seed_everything must be a number, because compare repeats its fits."),
        (("--trainer.devices=2",), "compare measures one device; leave trainer.devices and trainer.num_nodes at 1."),
        (("--rouns=2",), "there is no option rouns (did you mean rounds?). See mnist-amp compare --help."),
        (("--ckpt_path=last",), "there is no option ckpt_path. See mnist-amp compare --help."),
        (("--resume=last",), "there is no comparison under lightning_logs/compare. Start one: mnist-amp compare"),
        (("--data.val_size=60000",), None),
    ],
)
def test_wrong_requests_are_refused(
    refused: Refused, tmp_path: Path, options: tuple[str, ...], message: str | None
) -> None:
    found = refused("compare", *options)
    assert found == f"mnist-amp: error: {message}\n" if message else "data.val_size is 60000" in found
    assert files(tmp_path) == set()


def test_a_file_that_is_not_a_comparison_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1")
    assert refused("compare", f"--resume={tmp_path}").startswith(
        "mnist-amp: error: there is no comparison to resume at "
    )
    (tmp_path / "results.json").write_text("{}")
    assert (
        refused("compare", f"--resume={tmp_path}")
        == f"mnist-amp: error: {tmp_path}/results.json is not the results.json of a comparison.\n"
    )
