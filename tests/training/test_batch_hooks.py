"""Callbacks and modules that need their batch hooks in each step get single steps per execution."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)

from mnist_amp.module import LitClassifier
from mnist_amp.reporting.progress_bar import ProgressBar
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.training.batch_hooks import single_step_reason, weight_averages
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor
from mnist_amp.training.terminate_on_nan import TerminateOnNaN
from tests.conftest import Run
from tests.training.test_execution import SETTINGS, assert_same_runs


class CountsBatches(Callback):
    def on_train_batch_end(self, *args: Any) -> None: ...


class Declared(CountsBatches):
    once_per_execution = True


class OtherHookOfDeclared(Declared):
    def on_train_batch_end(self, *args: Any) -> None: ...


class OtherTimer(Timer):
    def on_train_batch_start(self, *args: Any) -> None: ...


class OtherAverage(EMAWeightAveraging):
    def on_train_batch_end(self, *args: Any) -> None: ...


class AverageOfOtherSteps(WeightAveraging):
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % 3 == 0


class LitWithHook(LitClassifier):
    def on_train_batch_end(self, *args: Any) -> None: ...


class LitWithOtherHook(LitClassifier):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)


def reason(*callbacks: Callback, module: LightningModule | None = None) -> str | None:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=[*callbacks], **quiet)
    return single_step_reason(trainer, module or LitClassifier())


@pytest.mark.parametrize(
    "callback",
    [
        *(LearningRateMonitor(), DeviceStatsMonitor(), Timer("00:00:01:00"), TQDMProgressBar(), ModelCheckpoint(".")),
        *(EarlyStopping("val_loss"), StochasticWeightAveraging(0.1), EMAWeightAveraging(), AverageOfOtherSteps()),
        *(RunCheckpoint(RunFolder(Path(), "")), ProgressBar(), LossScaleMonitor({}), TerminateOnNaN()),
        *(Declared(), LambdaCallback(on_train_epoch_end=lambda *args: None)),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_several_steps(callback: Callback) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_model_summary=False, callbacks=[callback])
    assert single_step_reason(trainer, LitClassifier()) is None


@pytest.mark.parametrize(
    ("callback", "hook"),
    [
        (CountsBatches(), "on_train_batch_end"),
        (OtherHookOfDeclared(), "on_train_batch_end"),
        (OtherTimer(), "on_train_batch_start"),
        (OtherAverage(), "on_train_batch_end"),
        (ThroughputMonitor(batch_size_fn=len), "on_train_batch_end"),
        (LambdaCallback(on_train_batch_start=lambda *args: None), "on_train_batch_start"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_single_steps_because_of_a_callback(callback: Callback, hook: str) -> None:
    assert reason(LearningRateMonitor(), callback) == f"{hook} of {type(callback).__name__} may need each step"


@pytest.mark.parametrize("module", [LitWithHook(), LitWithOtherHook()], ids=lambda module: type(module).__name__)
def test_single_steps_because_of_the_module(module: LitClassifier) -> None:
    hook = "on_train_batch_end" if isinstance(module, LitWithHook) else "on_train_batch_start"
    assert reason(module=module) == f"{hook} of {type(module).__name__} may need each step"


def test_averages_are_called_between_the_steps() -> None:
    callbacks = [EMAWeightAveraging(), OtherAverage(), AverageOfOtherSteps(), StochasticWeightAveraging(0.1)]
    trainer = Trainer(accelerator="cpu", logger=False, enable_model_summary=False, callbacks=[*callbacks])
    assert weight_averages(trainer) == [callbacks[0], callbacks[2]]


class SeenBatches(Callback):
    """Notes the batches that its hook gets."""

    seen: ClassVar[list[tuple[int, int]]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((batch_idx, len(batch.labels)))


def test_a_callback_gets_each_batch(run: Run) -> None:
    SeenBatches.seen.clear()
    callback = "--trainer.callbacks=tests.training.test_batch_hooks.SeenBatches"
    out = run("fit", *SETTINGS, "--trainer.max_epochs=1", callback, "--model.steps_per_execution=10")
    assert SeenBatches.seen == [*((place, 48) for place in range(20)), (20, 40)]
    assert (
        "\nexecution  1 optimizer step per execution instead of 10, because on_train_batch_end of SeenBatches may need "
        "each step\n" in out
    )


EMA = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.9")


@pytest.mark.parametrize(
    "average",
    [
        EMA,
        (*EMA, "--trainer.callbacks.update_every_n_steps=3", "--trainer.callbacks.update_starting_at_step=5"),
        ("--trainer.callbacks=tests.training.test_batch_hooks.AverageOfOtherSteps",),
        ("--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"),
    ],
    ids=["ema", "ema-every-3", "own", "swa"],
)
@pytest.mark.parametrize("config", ["bf16.yaml", "fp16-cpu.yaml"])
def test_averaged_weights_do_not_depend_on_the_steps_per_execution(
    run: Run, config: str, average: tuple[str, ...]
) -> None:
    schedule = ("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.98", "--model.lr_scheduler_interval=step")
    for steps in (1, 10):
        out = run("fit", f"-c={config}", *SETTINGS, *average, *schedule, f"--model.steps_per_execution={steps}")
    assert "\nexecution  10 optimizer steps per execution, " in out
    assert_same_runs(1)
