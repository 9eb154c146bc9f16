"""The benchmark of modules of other projects: its loops do the work of the modules, and its table."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

import own_loops
import own_modules as benchmark
from tests.measuring import own_modules

RESULTS = Path(__file__).parents[2] / "docs" / "results"
WIDTH, BATCH_SIZE, SIZE = 8, 8, 40
EPOCHS = 2


class Losses(Callback):
    """Keeps the loss of each step; of manual optimization, the one that the module logs."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if outputs else trainer.callback_metrics["reconstruction_step"]
        self.found.append(float(loss))


def losses_in_lightning(case: benchmark.Case, precision: Any) -> list[float]:
    torch.manual_seed(0)
    module = getattr(own_modules, case.module)(width=WIDTH)
    data = getattr(own_modules, case.data)(batch_size=BATCH_SIZE, size=SIZE)
    losses = Losses()
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        accelerator=own_loops.DEVICE,
        precision=precision,
        max_epochs=EPOCHS,
        limit_val_batches=0,
        logger=False,
        callbacks=[losses],
        **quiet,
    )
    trainer.fit(module, data)
    return losses.found


def losses_of_the_loop(case: benchmark.Case, precision: str) -> list[float]:
    torch.manual_seed(0)
    step, loader = own_loops.prepared(case.module, precision, WIDTH, BATCH_SIZE, SIZE)
    batches = own_loops.endless(loader)
    losses: list[Tensor] = [step(next(batches)) for _ in range(EPOCHS * SIZE // BATCH_SIZE)]
    return [float(loss) for loss in losses]


@pytest.mark.parametrize("case", benchmark.CASES, ids=lambda case: case.module)
@pytest.mark.parametrize("precision", benchmark.BOTH)
def test_a_loop_trains_as_the_module_does(case: benchmark.Case, precision: str) -> None:
    wanted = losses_in_lightning(case, precision)
    assert losses_of_the_loop(case, precision) == wanted
    assert len(set(wanted)) == EPOCHS * SIZE // BATCH_SIZE


def test_a_loop_runs_without_lightning() -> None:
    case = benchmark.Case("LitAutoencoder", "Vectors", WIDTH, BATCH_SIZE, SIZE)
    assert benchmark.by_hand(case, "bf16-mixed", 0.01) > 0  # which asserts that the loop has not imported it


def test_the_benchmark_at_a_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("MNIST_AMP_DATA__DATA_DIR", raising=False)  # a setting of the data of this project
    monkeypatch.setattr(benchmark, "CASES", [benchmark.Case("LitSlow", "SlowImages", WIDTH, BATCH_SIZE, SIZE)])
    words = ["own_modules.py", "--rounds=1", "--seconds=0.01", f"--results={tmp_path}"]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert [(run["precision"], run["width"]) for run in record["runs"]] == [(name, WIDTH) for name in benchmark.BOTH]
    assert min(run[way] for run in record["runs"] for way in ("bare", "compare")) > BATCH_SIZE * 0.002
    assert path.with_suffix(".md").read_text() == benchmark.table(record)


def test_table_of_the_ratios() -> None:
    measured = [("LitCNN", "32-true", 0.01, 0.011), ("LitCNN", "bf16-mixed", 0.005, 0.005)]
    runs = [
        {"module": module, "width": 32, "batch_size": 64, "precision": precision, "round": turn}
        | {"bare": bare * (turn + 1), "compare": compared * (turn + 1)}  # a busy machine changes both
        for turn in range(3)
        for module, precision, bare, compared in measured
    ]
    record = {"device": "a CPU", "bfloat16": True, "versions": {"torch": "2.15.0"}, "date": "2026-11-26", "runs": runs}
    assert benchmark.table({**record, "command": "python x"}) == (
        "Speed of bf16-mixed (32-true = 1), measured in two ways:\n\n"
        "| module | width, batch size | 32-true, ms per step | bare loop | `mnist-amp compare` | difference |\n"
        "|---|---|---|---|---|---|\n"
        "| LitCNN | 32, 64 | 20.0 | 2.00 (2.00 to 2.00) | 2.20 (2.20 to 2.20) | +10% |\n\n"
        "Medians (minimum to maximum) of 3 interleaved rounds on: a CPU, with instructions for bfloat16, "
        "torch 2.15.0, 2026-11-26.\n"
        "`python x`\n"
    )


def test_the_saved_table_is_that_of_the_saved_results() -> None:
    saved = list(RESULTS.glob("own-modules-*.json"))
    assert saved
    for path in saved:
        assert path.with_suffix(".md").read_text(encoding="utf-8") == benchmark.table(json.loads(path.read_text()))
