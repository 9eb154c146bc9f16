"""The examples in the docstrings."""

import doctest
import itertools
from types import ModuleType

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from mnist_amp.measuring import (
    axes,
    compare_records,
    compare_report,
    dtypes,
    environment,
    gradients,
    inference_inputs,
    inference_records,
    inference_report,
    measured_fit,
    operation_kinds,
    profile_report,
    step_work,
    verdict,
    work_tables,
)
from mnist_amp.measuring.step_parts import ACTIONS, HostClock, Recorder, StepProfiler


@pytest.mark.parametrize(
    "module",
    [
        axes,
        compare_records,
        compare_report,
        dtypes,
        environment,
        gradients,
        inference_inputs,
        inference_records,
        inference_report,
        measured_fit,
        operation_kinds,
        profile_report,
        step_work,
        verdict,
        work_tables,
    ],
)
def test_examples_are_true(module: ModuleType) -> None:
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


class Regression(LightningModule):
    """A module of another project."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.layer(batch).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_step_profiler_records_any_module() -> None:
    clock = HostClock()
    recorder = Recorder(clock)
    profiler = StepProfiler(clock, script=itertools.repeat(None), finish=lambda: None)
    profiler.watch(recorder, ACTIONS)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, profiler=profiler, enable_model_summary=False, **options)  # type: ignore[arg-type]
    trainer.fit(Regression(), DataLoader(torch.ones(3, 2)))  # type: ignore[arg-type]
    steps = [step for step in recorder.times() if "training_step" in step]
    assert len(steps) == 3
    assert all(set(ACTIONS.values()) <= {*step, "optimizer"} for step in steps)
