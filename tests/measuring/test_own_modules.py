"""`compare` and `profile` with the modules of other projects."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_amp.__main__ import main
from mnist_amp.measuring.fit_measurements import measure_score, measure_speed, measure_step, try_fit
from mnist_amp.measuring.numerics import measure_numerics
from mnist_amp.measuring.precisions import PRECISIONS
from tests.conftest import ROOT, Run
from tests.measuring import own_modules

MODULES = "tests.measuring.own_modules"
FOLDER = Path("lightning_logs/compare/version_0")
QUICK = ("--rounds=1", "--seeds=1", "--seconds=0.01", "--trainer.max_epochs=1", "--precisions=[32-true,bf16-mixed]")


def options(module: str, data: str, **more: Any) -> dict[str, Any]:
    """Return options of fit that name the classes, with few data."""
    named = {"model": f"{MODULES}.{module}", "data": f"{MODULES}.{data}", "data.size": 96, "data.batch_size": 8}
    return {**named, "trainer.accelerator": "cpu", **more}


def as_config(options: dict[str, Any]) -> dict[str, Any]:
    """Return options by name as nested settings, with the parameters of the classes."""
    config: dict[str, Any] = {}
    for name, value in options.items():
        group, _, parameter = name.partition(".")
        if not parameter:
            config[group] = {"class_path": value, "init_args": {}}
        else:
            found = config.setdefault(group, {})
            found.get("init_args", found)[parameter] = value
    return config


def compared(run: Run, module: str, data: str, *more: str) -> tuple[str, dict[str, Any]]:
    """Return the report of a small comparison, and its results."""
    named = [f"--{name}={value}" for name, value in options(module, data).items()]
    run("compare", *named, *QUICK, *more)
    return (FOLDER / "report.md").read_text(), json.loads((FOLDER / "results.json").read_text())


@pytest.fixture(autouse=True)
def importable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delenv("MNIST_AMP_DATA__DATA_DIR")  # a setting of the data of this project


@pytest.mark.parametrize(
    ("module", "data", "metric"),
    [
        ("LitCNN", "Images", "val_loss"),
        ("LitTransformer", "Sentences", "perplexity"),
        ("LitAutoencoder", "Vectors", "val_loss"),
        ("LitSlow", "SlowImages", "val_loss"),
    ],
)
def test_the_modules_learn_with_a_plain_trainer(module: str, data: str, metric: str) -> None:
    """After some steps, the loss on other examples is a fifth lower at least."""
    torch.manual_seed(0)
    lit, source = getattr(own_modules, module)(), getattr(own_modules, data)(batch_size=16, size=128)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_epochs=10, logger=False, num_sanity_val_steps=0, **quiet)
    (before,) = trainer.validate(lit, source, verbose=False)
    trainer.fit(lit, source)
    assert trainer.callback_metrics[metric] < 0.8 * before[metric]


@pytest.mark.parametrize(
    ("module", "data", "metrics", "optimizer"),
    [
        ("LitCNN", "Images", ["train_loss", "train_loss_step", "val_loss", "val_acc", "train_loss_epoch"], "SGD"),
        ("LitTransformer", "Sentences", ["perplexity"], "AdamW"),
        ("LitAutoencoder", "Vectors", ["reconstruction", "reconstruction_step", "val_loss"], "Adam, Adam"),
    ],
)
def test_every_measurement_of_a_module(module: str, data: str, metrics: list[str], optimizer: str) -> None:
    own, half = options(module, data), options(module, data, **PRECISIONS["bf16-mixed"])
    assert set(metrics) <= set(try_fit({}, own).metrics)
    speed, environment = measure_speed({}, half, 0.01)
    assert (speed.effective, speed.not_captured) == ("bf16-mixed", None)
    assert speed.steps > 0
    assert 0 < speed.waiting_seconds < speed.seconds
    assert environment.device.startswith("CPU (")
    profile, _ = measure_step({}, half, 0.01)
    assert profile.optimizer == optimizer
    assert profile.flops > 0
    assert profile.non_finite is None
    assert sum(profile.work.values()) == pytest.approx(1.0)
    assert {"backward", "optimizer", "waiting for data"} <= set(profile.times.parts)
    assert {layer.output for layer in profile.layers if layer.kind == "Linear"} <= {"bfloat16", "float32"}
    assert "bfloat16" in {operation.inputs for operation in profile.operations}
    assert profile.memory.gradients == profile.memory.weights
    score, _ = measure_score({}, {**own, "trainer.max_epochs": 2}, metrics[-1])
    assert score.steps == 2 * 12 * (2 if module == "LitAutoencoder" else 1)
    assert len(score.curve) == (0 if module == "LitAutoencoder" else 24)


@pytest.mark.parametrize("kind", ["one_cycle", "plateau", "raw", "logger"])
def test_modules_that_depend_on_the_fit_around_them(kind: str) -> None:
    """A fit that is measured has no end and no validation of its own, and no logger."""
    own = options("LitPlain", "Vectors", **{"model.kind": kind, "trainer.max_epochs": 1})
    speed, _ = measure_speed({}, own, 0.05)
    assert speed.steps > 0
    profile, _ = measure_step({}, own, 0.01)
    assert profile.flops == 2 * (2 * 8 * 64)  # the layer, and the gradient of its weight
    numerics = measure_numerics(as_config(own), {"bf16-mixed": PRECISIONS["bf16-mixed"]})
    assert [each.error for each in numerics.precisions] == [None]
    trial = try_fit({}, own)
    assert (trial.validation[0], trial.has_loss) == ("size", kind != "raw")


def test_gradients_are_accumulated() -> None:
    accumulated = {"trainer.accumulate_grad_batches": 4, "trainer.gradient_clip_val": 0.5}
    own = options("LitPlain", "Vectors", **accumulated)
    profile, _ = measure_step({}, own, 0.01)
    assert profile.flops == 2 * (2 * 8 * 64)  # of a batch
    assert sum(operation.count for operation in profile.operations if operation.name == "addmm") == 4
    assert sum(profile.work.values()) == pytest.approx(1.0)
    speed, _ = measure_speed({}, own, 0.05)
    assert 0 < speed.waiting_seconds < speed.seconds


def test_the_flops_of_a_step_are_those_of_its_layers() -> None:
    """The autoencoder runs its forward pass twice; each layer but the first has a product for its inputs as well."""
    profile, _ = measure_step({}, options("LitAutoencoder", "Vectors", **{"model.width": 16}), 0.01)
    sizes = [(64, 16), (16, 16), (16, 8), (8, 16), (16, 16), (16, 64)]
    products = [3 - (layer == 0) for layer in range(len(sizes))]
    assert profile.flops == 2 * sum(count * 2 * 8 * m * n for count, (m, n) in zip(products, sizes, strict=True))


def test_a_comparison_of_a_module(run: Run) -> None:
    report, record = compared(run, "LitCNN", "Images", "--axes={model.width: [4]}", "--metric=val_acc")
    assert record["metric"] == {"name": "val_acc", "mode": "max"}
    assert record["axes"] == {"data.batch_size": [8], "model.width": [4, 8]}
    assert [tuple(row["cell"][key] for key in ("kind", "precision")) for row in record["cells"]] == [
        *[(kind, precision) for precision in ("32-true", "bf16-mixed") for kind in ("speed", "profile")] * 2,
        ("numerics", "32-true"),
        ("score", "32-true"),
        ("score", "bf16-mixed"),
        ("inference", "32-true"),
    ]
    assert all("error" not in row for row in record["cells"])
    assert "\nWith batch_size 8 and width 8 on CPU" in report


def test_the_metric_is_found_by_a_fit_on_one_batch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report, record = compared(run, "LitTransformer", "Sentences")
    assert record["metric"] == {"name": "perplexity", "mode": "min"}
    assert "- perplexity over 1 seed: 32-true " in report
    with pytest.raises(SystemExit):
        compared(run, "LitTransformer", "Sentences", "--metric=perplexty")
    assert capsys.readouterr().err.endswith(
        "mnist-amp: error: metric is perplexty, which the module does not log (did you mean perplexity?). It logs "
        "perplexity.\n"
    )
    with pytest.raises(SystemExit):
        compared(run, "LitAutoencoder", "Vectors", "--metric=reconstruction")
    assert capsys.readouterr().err.endswith(
        "mnist-amp: error: is a small or a large reconstruction better? Give --mode min or --mode max.\n"
    )


def test_a_slow_data_loader_is_the_verdict(run: Run) -> None:
    report, record = compared(run, "LitSlow", "SlowImages", "--seeds=0", "--data.seconds=0.01")
    waited = [row["waiting_seconds"] for row in record["cells"] if row["cell"]["kind"] == "speed"]
    assert min(waited) > 8 * 0.01
    assert " of a 32-true step is waiting for your DataLoader: " in report


def test_workers_of_a_data_loader(run: Run) -> None:
    _, record = compared(run, "LitCNN", "Images", "--data.num_workers=1", "--seeds=0")
    assert all("error" not in row for row in record["cells"])


def test_a_stopped_comparison_of_a_module_resumes_where_it_stopped(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    _, record = compared(run, "LitAutoencoder", "Vectors", "--metric=val_loss")
    stopped = {**record, "cells": record["cells"][:3]}
    (FOLDER / "results.json").write_text(json.dumps(stopped))
    run("compare", "--resume=last")
    resumed = json.loads((FOLDER / "results.json").read_text())
    main(["compare", "--resume=last"])
    assert capsys.readouterr().err.endswith(f"mnist-amp: {FOLDER} is complete, so nothing is measured\n")
    with pytest.raises(SystemExit):
        main(["compare", "--resume=last", "--rounds=4"])
    assert capsys.readouterr().err == (
        "mnist-amp: error: resume keeps the settings of the comparison, so rounds has no effect. Leave it out.\n"
    )
    assert resumed["cells"][:3] == stopped["cells"]
    assert [row["cell"] for row in resumed["cells"]] == [row["cell"] for row in record["cells"]]


HARD = """
import torch

from tests.measuring import own_modules


class Overflows(torch.nn.Module):
    def forward(self, values):
        return values * 1e5


class HasNoHalf(torch.nn.Module):
    def forward(self, values):
        if values.dtype == torch.bfloat16:
            raise RuntimeError("no kernel for BFloat16")
        return values


class Hard(own_modules.LitCNN):
    def __init__(self, layer="Overflows", most=1000):
        super().__init__()
        self.net.insert(3, globals()[layer]())
        self.most = most

    def training_step(self, batch, batch_idx):
        if len(batch[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().training_step(batch, batch_idx)
"""


@pytest.fixture
def hard(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hard_module.py").write_text(HARD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hard_module", raising=False)
    return "--model=hard_module.Hard"


def test_a_layer_that_overflows_is_named(run: Run, hard: str) -> None:
    report, _ = compared(run, "LitCNN", "Images", hard, "--precisions=[32-true,fp16-cpu]")
    assert "but the output of layer net.3 is not finite (inf or nan)." in report


def test_layers_in_float32_are_a_row_of_their_own_and_mend_an_overflow(run: Run, hard: str) -> None:
    layers = "--trainer.plugins.layers=[net.3,net.4]"
    plugin = ("--trainer.plugins=mnist_amp.training.float32_layers.Float32Layers", layers)
    rows = "--precisions=[32-true,fp16-cpu,plugins]"
    report, record = compared(run, "LitCNN", "Images", hard, rows, "--trainer.precision=null", *plugin)
    effective = {row["cell"]["precision"]: row.get("effective") for row in record["cells"] if "effective" in row}
    assert effective["plugins"] == "16-mixed with 2 layers in float32"
    found = {row["cell"]["precision"]: row for row in record["cells"] if row["cell"]["kind"] == "profile"}
    assert (found["fp16-cpu"]["non_finite"], found["plugins"]["non_finite"]) == ("net.3", None)
    assert "the loss is nan" in report


def test_an_operation_without_a_kernel_is_named(run: Run, hard: str) -> None:
    report, _ = compared(run, "LitCNN", "Images", hard, "--model.layer=HasNoHalf")
    error = "RuntimeError: no kernel for BFloat16 (in layer net.3, HasNoHalf) (hard_module.py, line 15)"
    assert f"- bf16-mixed with batch_size 8 failed: {error}\n" in report


def test_smaller_batches_are_measured_where_the_memory_ends(run: Run, hard: str) -> None:
    sizes = ("--data.batch_size=24", "--axes={data.batch_size: [2]}", "--model.most=11", "--seeds=0")
    report, record = compared(run, "LitCNN", "Images", hard, "--model.layer=HasNoHalf", *sizes)
    speeds = [
        row for row in record["cells"] if row["cell"]["kind"] == "speed" and row["cell"]["precision"] == "32-true"
    ]
    assert [(row["cell"]["setting"]["data.batch_size"], "error" in row) for row in speeds] == [
        (2, False),
        (24, True),
        (12, True),
        (6, False),
    ]
    assert "\nWith batch_size 6 on CPU" in report
    assert "- The memory is too small for batch_size 24 in 32-true and bf16-mixed; batch_size 12 in " in report
