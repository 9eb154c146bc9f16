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

from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring import compare
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.precisions import PRECISIONS
from tests.conftest import Refused, Run, files

FAST = (
    *("--seconds=0.01", "--rounds=2", "--seeds=1", "--trainer.max_epochs=1"),
    *("--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2"),
)
QUICK = ("--axes={network.hidden_dim: [8], data.batch_size: [64]}", "--network.hidden_dim=8", *FAST)
ONCE = ("--rounds=1", "--seeds=0")
TWO = "--precisions=[32-true,bf16-mixed]"
FOLDER = Path("lightning_logs/compare/version_0")
WRITTEN = {"results.json", "report.md", "report.html", "time.png", "memory.png", "metric.png", "loss.png"}


def results(folder: Path = FOLDER) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return record


def measured(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return kind, precision and number of each cell, and the effective precision."""
    return [
        (*(row["cell"][name] for name in ("kind", "precision", "number")), row.get("effective", row.get("precision")))
        for row in record["cells"]
    ]


def errors_of(record: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(row["cell"]["kind"], row["cell"]["precision"], row.get("error")) for row in record["cells"]]


@pytest.mark.drawn
def test_compare_measures_each_precision(run: Run, tmp_path: Path) -> None:
    printed = run("compare", *QUICK, "--scaler.init_scale=16", "--precisions=[32-true,bf16-mixed,16-mixed,fp16-cpu]")
    assert files(tmp_path) == {f"{FOLDER}/{name}" for name in WRITTEN}
    distinct = [("32-true", "32-true"), ("bf16-mixed", "bf16-mixed"), ("fp16-cpu", "16-mixed")]
    record = results()
    assert measured(record) == [
        ("speed", "32-true", 0, "32-true"),
        ("profile", "32-true", 0, "32-true"),
        ("speed", "bf16-mixed", 0, "bf16-mixed"),
        ("profile", "bf16-mixed", 0, "bf16-mixed"),
        ("speed", "16-mixed", 0, "bf16-mixed"),
        ("speed", "fp16-cpu", 0, "16-mixed"),
        ("profile", "fp16-cpu", 0, "16-mixed"),
        *(("speed", precision, 1, effective) for precision, effective in distinct),
        ("numerics", "32-true", 0, None),
        *(("score", precision, 42, effective) for precision, effective in distinct),
        ("inference", "32-true", 42, None),
    ]
    assert (record["cells"][-2]["loss_scale"], record["cells"][-2]["skipped_steps"]) == (16.0, 0)
    assert "16-mixed ran as bf16-mixed here, so it is not listed separately.\n" in printed
    sentences = " ".join(printed.split())  # lines are wrapped by what was measured
    assert re.search(r"fp16-cpu is [\d.]+ times as fast as 32-true \([^)]+\)[^.]*\. It is slow by design: ", sentences)


def test_a_failed_measurement_is_a_row_with_its_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def isolated(function: Any, config: Any, overrides: dict[str, Any], *args: Any) -> Any:
        if overrides.get("trainer.precision") == "bf16-mixed":
            raise RunError("the GPU is out of memory")
        return run_isolated(function, config, overrides, *args)

    monkeypatch.setattr(compare, "run_isolated", isolated)
    printed = run("compare", *QUICK, TWO)
    assert errors_of(results()) == [
        ("speed", "32-true", None),
        ("profile", "32-true", None),
        ("speed", "bf16-mixed", "the GPU is out of memory"),
        ("speed", "32-true", None),
        ("numerics", "32-true", None),
        ("score", "32-true", None),
        ("inference", "32-true", None),
    ]
    assert re.search(r"^bf16-mixed +failed +- +- +- +- +-$", printed, re.MULTILINE)
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
    error = capsys.readouterr().err
    assert error.endswith("\nmnist-amp: error: nothing could be measured: the GPU is out of memory\n")


def test_a_stopped_comparison_resumes_where_it_stopped(run: Run, tmp_path: Path, data_dir: Path) -> None:
    env = {**os.environ, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    command = [
        sys.executable,
        "-m",
        "mnist_amp",
        "compare",
        *QUICK,
        "--rounds=200",
        TWO,
    ]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    wait_for(FOLDER / "results.json", process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    message = process.stderr.read()
    assert process.wait() == 130
    before = results()
    count = len(before["cells"])
    assert message.endswith(
        f"mnist-amp: stopped by SIGINT after {count} measurement{'s' * (count > 1)}, saved in {FOLDER}. "
        f"Resume with: mnist-amp compare --resume {FOLDER}\n"
    )
    (FOLDER / "results.json").write_text(json.dumps({**before, "rounds": 2}))  # the rest in less time
    run("compare", "--resume=last")
    assert results()["cells"][:count] == before["cells"]
    assert len(results()["cells"]) == max(count, 6) + 4  # speeds, profiles, numerics, scores and inference
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
            "precisions has 8-mixed; it takes " + ", ".join(PRECISIONS) + ".",
        ),
        (("--precisions=[32-true]",), "precisions needs at least two that differ."),
        (("--precisions=[32-true,32-true]",), "precisions needs at least two that differ."),
        (
            ("--precisions=[32-true,plugins]",),
            "precisions has plugins, but trainer.plugins is not set. Set it, or leave plugins out.",
        ),
        (
            (
                "--trainer.plugins=MixedPrecision",
                "--trainer.plugins.precision=16-mixed",
                "--trainer.plugins.device=cpu",
            ),
            "trainer.plugins is measured as a precision of its own: give --precisions "
            "'[32-true,bf16-mixed,16-mixed,plugins]'.",
        ),
        (("--axes={network.hidden_dim: [wide]}",), "axes: network.hidden_dim can't be wide; it takes int."),
        (("--axes={data.batch_size: [64, -1]}",), "axes: data.batch_size is -1; it must be at least 1."),
        (
            ("--axes={data.batch_size: [60001]}",),
            "axes: data.batch_size is 60001, but there are 55,000 images to train on.",
        ),
        (
            ("--axes={data.batch_size: [500], data.val_size: [0, 59600]}",),
            "axes: data.batch_size is 500, but there are 400 images to train on.",
        ),
        (("--data.batch_size=56000",), "data.batch_size is 56000, but there are 55,000 images to train on."),
        (("--axes={optimizer.lr: [0.1, 0]}",), "axes: optimizer.lr is 0.0; it must be above 0."),
        (
            ("--axes={data.bach_size: [8]}",),
            "axes: there is no option data.bach_size (did you mean data.batch_size?).",
        ),
        (("--axes={optimizer.fused: [maybe]}",), "axes: optimizer.fused can't be maybe; it takes true or false."),
        (
            ("--axes={trainer.devices: [1, 2]}",),
            "axes: compare measures one device; leave trainer.devices and trainer.num_nodes at 1.",
        ),
        (
            ("--axes={data.batch_size: 64}",),
            "axes can't be 64; it takes a list, as in '[A,B]'. See mnist-amp compare --help.",
        ),
        (
            ("--axes=64",),
            "axes can't be 64; it takes names with values, as in '{A: B}'. See mnist-amp compare --help.",
        ),
        (
            ("--axes={rounds: [1, 2]}",),
            "axes has rounds, which is no setting of fit. Give settings as in '{data.batch_size: [64, 512]}'.",
        ),
        (
            ("--axes={data: [{batch_size: 8}]}",),
            "axes has data, which is no setting of fit. Give settings as in '{data.batch_size: [64, 512]}'.",
        ),
        (
            ("--axes={trainer.precision: [16-mixed]}",),
            "axes has trainer.precision, but the precisions are those of --precisions.",
        ),
        (
            ("--axes={trainer.plugins: [null]}",),
            "axes has trainer.plugins, but the precisions are those of --precisions, which has fp16-cpu and plugins as "
            "well.",
        ),
        (
            ("--axes={matmul_precision: [high]}",),
            "axes has matmul_precision, but TF32 is the precision tf32 of --precisions.",
        ),
        (
            ("--axes={seed_everything: [1, 2]}",),
            "axes has seed_everything, but --seeds is the number of seeds, and --seed_everything the first of them.",
        ),
        (
            ("--axes={trainer.accelerator: [cpu, gpu]}",),
            "axes has trainer.accelerator, but compare measures one device, which --trainer.accelerator chooses.",
        ),
        (("--hidden_dims=[8]",), "there is no option hidden_dims. See mnist-amp compare --help."),
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
    (tmp_path / "results.json").write_text('{"hidden_dims": [8], "cells": []}')
    assert refused("compare", f"--resume={tmp_path}") == (
        f"mnist-amp: error: {tmp_path}/results.json was written by another version of mnist-amp; start a new "
        "comparison.\n"
    )


NETWORK = """
from torch import Tensor, nn


class MyNet(nn.Module):
    def __init__(self, width: int = 4, num_classes: int = 10) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
"""


@pytest.fixture
def my_net(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the class path of a network in the current folder."""
    (tmp_path / "compared_net.py").write_text(NETWORK)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "compared_net", raising=False)
    return "compared_net.MyNet"


def speed_settings(record: dict[str, Any], precision: str = "32-true", turn: int = 0) -> list[dict[str, Any]]:
    cells = [row["cell"] for row in record["cells"]]
    cells = [cell for cell in cells if (cell["kind"], cell["precision"]) == ("speed", precision)]
    return [cell["setting"] for cell in cells if cell["number"] == turn]


def test_axes_of_a_network_of_the_user(run: Run, my_net: str) -> None:
    axes = "--axes={network.width: [8, 2], data.batch_size: [32]}"
    printed = run("compare", *FAST, TWO, axes, f"--network={my_net}", "--rounds=1")
    record = results()
    assert record["own"] == {"network.width": 4, "data.batch_size": 64}
    assert record["axes"] == {"network.width": [2, 4, 8], "data.batch_size": [32, 64]}
    assert speed_settings(record) == [
        {"network.width": width, "data.batch_size": size} for width in (2, 4, 8) for size in (32, 64)
    ]
    scored = [row["cell"]["setting"] for row in record["cells"] if row["cell"]["kind"] == "score"]
    assert scored == [record["own"]] * 2
    weights = [row["memory"]["weights"] for row in record["cells"] if row["cell"]["kind"] == "profile"][::4]
    assert weights == [4 * (9 * width + width + 2 * width + 10 * width + 10) for width in (2, 4, 8)]
    assert re.search(r"^precision +ms per step", printed, re.MULTILINE)
    assert "\nWith width 4 and batch_size 64 on CPU" in printed
    assert "- network: MyNet (width 4)\n" in (FOLDER / "report.md").read_text()


def test_the_default_axis_of_a_network_without_a_hidden_dim(
    run: Run, my_net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("compare", *FAST, TWO, f"--network={my_net}", *ONCE, "--data.val_size=59900")
    assert results()["axes"] == {"data.batch_size": [64]}  # 512 are more than the images


def test_an_axis_without_numbers_and_the_order_of_its_values(run: Run) -> None:
    printed = run("compare", *FAST, TWO, "--axes={optimizer.fused: [true, false]}", *ONCE)
    assert results()["axes"] == {"optimizer.fused": [True, False, None]}
    assert "\nWith fused null on CPU" in printed


def test_an_axis_of_classes_keeps_their_arguments(run: Run) -> None:
    command = ("--axes={optimizer: [SGD, {class_path: SGD, init_args: {momentum: 0.9}}]}", "--optimizer.amsgrad=true")
    run("compare", *FAST, TWO, *command, *ONCE)
    record = results()
    momentum = {"class_path": "SGD", "init_args": {"momentum": 0.9}}
    assert record["axes"] == {"optimizer": ["SGD", momentum, "Adam"]}
    uses = [row["memory"] for row in record["cells"] if row.get("precision") == "32-true"]
    state, weights = [use["optimizer"] for use in uses], uses[0]["weights"]
    steps = 4 * len(("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"))
    assert state == [0, weights, 3 * weights + steps]  # Adam with amsgrad keeps three tensors for each, and its steps


def test_steps_are_taken_one_by_one_if_an_axis_accumulates_gradients(run: Run) -> None:
    run("compare", *FAST, TWO, "--axes={trainer.accumulate_grad_batches: [2]}", *ONCE)
    record = results()
    assert record["axes"] == {"trainer.accumulate_grad_batches": [1, 2]}
    assert record["config"]["model"]["steps_per_execution"] == 1
    assert {cell.get("error") for cell in record["cells"]} == {None}


@pytest.mark.parametrize(("wrong", "errors"), [(9, [None] * 4 + ["no"] * 2 + [None] * 2), (7, None)])
def test_a_setting_that_only_its_fit_refuses_is_a_row_with_its_error(
    wrong: int, errors: list[str | None] | None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first fit refuses its setting, nothing is written, because the request itself may be wrong."""

    def isolated(function: Any, config: Any, overrides: dict[str, Any], *args: Any) -> Any:
        if overrides.get("network.hidden_dim") == wrong:
            raise RequestError("no")
        return run_isolated(function, config, overrides, *args)

    monkeypatch.setattr(compare, "run_isolated", isolated)
    command = ("compare", *FAST, TWO, "--axes={network.hidden_dim: [7, 9]}", "--network.hidden_dim=7", *ONCE)
    if errors is None:
        with pytest.raises(SystemExit):
            run(*command)
        assert files(tmp_path) == set()
    else:
        run(*command)
        assert [cell.get("error") for cell in results()["cells"]] == errors


def test_no_fit_runs_before_all_settings_are_parsed(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "run_isolated", pytest.fail)
    axes = "--axes={optimizer: [Adam, SGD], optimizer.amsgrad: [true]}"
    assert refused("compare", *FAST, axes).startswith("mnist-amp: error: axes: optimizer: SGD takes no amsgrad")
    assert files(tmp_path) == set()
