"""A fit that can't recover is stopped, and its last good checkpoint is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.runs import checkpoint_files
from tests.conftest import THEIRS, Run, filled

SETTINGS = ("--config=configs/smoke.yaml", "--trainer.limit_train_batches=40", "--checkpoint.every_n_train_steps=6")
LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")
CAUSES = "Likely causes: a learning rate that is too high (0.001; try a tenth), gradients that need clipping. "


class Poison(Callback):
    """Makes a weight infinite before a step, or NaN after it; then the loss of the step is still finite."""

    def __init__(self, step: int, after: bool = False) -> None:
        self.step, self.after = step, after

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step + 1 == self.step and not self.after:
            pl_module.model.fc1.bias.data[0] = torch.inf

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and self.after:
            pl_module.model.fc1.bias.data[0] = torch.nan


class Overflow(Callback):
    """Makes the fp16 gradients overflow from a step on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step + 1 >= self.step:
            for parameter in pl_module.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)


@pytest.fixture
def failed(run: Run, capsys: pytest.CaptureFixture[str]) -> Any:
    def failed(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            run("fit", *SETTINGS, *args)
        assert exit_info.value.code == 1
        return capsys.readouterr().err

    return failed


def non_finite(name: str, step: int, *more: str) -> tuple[str, ...]:
    return (
        f"--trainer.callbacks=tests.training.test_terminate_on_nan.{name}",
        f"--trainer.callbacks.step={step}",
        *more,
    )


@pytest.mark.parametrize("every", [1, 3, 50])
def test_a_loss_that_is_not_finite(failed: Any, every: int) -> None:
    assert failed(*non_finite("Poison", 14), f"--trainer.log_every_n_steps={every}") == (
        "mnist-amp: error: the loss of step 14 is not finite; the run is stopped. "
        f"The last good checkpoint is {LAST}. {CAUSES}"
        f"Resume with: mnist-amp fit --ckpt_path {LAST} --optimizer.lr 0.0001\n"
    )
    assert checkpoint_files.read(LAST)["global_step"] == 12


def test_before_the_first_checkpoint(failed: Any) -> None:
    assert failed(*non_finite("Poison", 2)) == (
        "mnist-amp: error: the loss of step 2 is not finite; the run is stopped. There is no checkpoint yet. "
        f"{CAUSES}Start again with: mnist-amp fit --optimizer.lr 0.0001\n"
    )


def test_weights_that_are_not_finite_are_never_saved(failed: Any) -> None:
    message = failed(*non_finite("Poison", 18, "--trainer.callbacks.after=true"))
    assert message.startswith(
        "mnist-amp: error: the weights are not finite after step 18 (model.fc1.bias); the run is stopped. "
    )
    assert checkpoint_files.read(LAST)["global_step"] == 12


def test_the_suggested_command_resumes(failed: Any, run: Run) -> None:
    command = failed(*non_finite("Poison", 14)).strip().partition("Resume with: mnist-amp ")[2].split()
    run(*command, "--trainer.callbacks=null")
    assert checkpoint_files.read(Path(str(LAST).replace("_0", "_1")))["global_step"] == 40


def test_fp16_steps_that_are_all_skipped(failed: Any) -> None:
    single = ("--trainer.log_every_n_steps=4", "--model.steps_per_execution=1")  # it is noticed after an execution
    message = failed("--config=configs/fp16-cpu.yaml", *non_finite("Overflow", 8), *single)
    warning, message = message.split("\n", 1)
    assert warning.startswith(
        "mnist-amp: warning: steps are skipped again and again because their fp16 gradients overflow: 9 "
    )
    assert message.startswith(
        "mnist-amp: error: the last 20 steps were all skipped because their fp16 gradients overflowed; "
        "the run is stopped. "
        f"The last good checkpoint is {LAST}. {CAUSES.strip('. ')}, or numbers out of fp16's range "
        "(try bf16-mixed or 32-true). "
    )
    # the weights are those of step 8, and the scale can still recover
    assert checkpoint_files.read(LAST)["global_step"] == 24


def test_a_few_skipped_steps_do_not_stop_the_run(run: Run) -> None:
    run("fit", *SETTINGS, "--config=configs/fp16-cpu.yaml", *non_finite("Overflow", 30))
    assert checkpoint_files.read(LAST)["MixedPrecision"]["scale"] == 65536 * 0.5**11


def test_a_run_without_checkpoints(failed: Any) -> None:
    message = failed("--trainer.enable_checkpointing=false", *non_finite("Poison", 9), "--trainer.log_every_n_steps=50")
    assert message.startswith(
        "mnist-amp: error: the loss of step 9 is not finite; the run is stopped. There is no check"
    )
    assert not list(Path().rglob("*.ckpt"))


def test_anomaly_detection(failed: Any) -> None:
    message = failed(
        "--trainer.detect_anomaly=true", "--trainer.callbacks=null", "--optimizer=SGD", "--optimizer.lr=1e30"
    )
    assert message == filled(
        f"mnist-amp: error: trainer.detect_anomaly found a gradient that is nan: {THEIRS} "
        "Set MNIST_AMP_DEBUG=1 to see where.\n",
        message,
    )


def test_early_stopping_does_not_hide_it(failed: Any) -> None:
    """The validation runs before the check at the end of the epoch. It would end the run with exit status 0."""
    stopping = ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss")
    message = failed(*stopping, "--trainer.log_every_n_steps=50", "--optimizer=SGD", "--optimizer.lr=1e30")
    assert "is not finite; the run is stopped." in message
