"""The benchmark of modules of other projects: its loops do the work of the modules, and its table."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import Tensor

import own_loops
import own_modules as benchmark
from tests.measuring import own_modules

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
