"""Several steps at once: the same steps, the same figures, the same checkpoints as one after the other."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp import execution, runs
from tests.conftest import Refused, Run
from tests.recorded_graph import Capture, HostSyncError, NoteAsking, RecordedGraph
from tests.test_exact import KEPT, goes_on, interrupted, last, logged
from tests.test_module import NEEDS_CUDA
from tests.test_resume import flat

# 21 batches an epoch, the last of 40 images
SETTINGS = (
    *("--trainer.max_epochs=3", "--data.val_size=59000", "--data.batch_size=48", "--trainer.limit_val_batches=4"),
    *("--trainer.log_every_n_steps=5", "--checkpoint.every_n_train_steps=7"),
)
SCHEDULE = (
    *("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.98", "--model.lr_scheduler_interval=step"),
    "--optimizer.lr=0.004",
)
CLIP = ("--trainer.gradient_clip_val=0.3",)


class Executions(Callback):
    """Notes where executions end."""

    ends: ClassVar[list[int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ends.append(trainer.global_step)


def assert_same_runs(version: int, whole: int = 0) -> None:
    expected, found = last(whole), last(version)
    for key in KEPT:
        assert flat(found.get(key)) == flat(expected.get(key)), key
    assert logged(version) == logged(whole)


@pytest.mark.parametrize("steps", [4, 50])
@pytest.mark.parametrize(
    "settings",
    [("-c=fp32.yaml", *SCHEDULE), ("-c=bf16.yaml", "--trainer.val_check_interval=6"), ("-c=fp16-cpu.yaml",)],
    ids=["fp32", "bf16", "fp16"],
)
@pytest.mark.parametrize("clip", [(), CLIP], ids=["", "clipped"])
def test_the_same_run(run: Run, steps: int, settings: tuple[str, ...], clip: tuple[str, ...]) -> None:
    run("fit", *settings, *clip, *SETTINGS)
    run("fit", *settings, *clip, *SETTINGS, f"--model.steps_per_execution={steps}")
    assert last(0)["global_step"] == 63
    assert_same_runs(1)


def test_executions_end_where_something_is_due(run: Run) -> None:
    callback = ("--trainer.callbacks=tests.test_execution.Executions", "--trainer.val_check_interval=8")
    run("fit", *SETTINGS, *callback, "--trainer.max_steps=31", "--model.steps_per_execution=4")
    # 5, 10, ...: a log row; 7, 14, ...: a checkpoint; 8, 16 and 29: a validation; 21: an epoch's end; 31: the last
    assert Executions.ends == [4, 5, 7, 8, 10, 14, 15, 16, 20, 21, 25, 28, 29, 30, 31]


def test_goes_on_with_another_number_of_steps(run: Run) -> None:
    run("fit", *SETTINGS, *SCHEDULE)
    interrupted(run, 10, *SETTINGS, *SCHEDULE, "--model.steps_per_execution=4")
    interrupted(run, 40, "--ckpt_path=last", "--model.steps_per_execution=3")
    goes_on(run, "--model.steps_per_execution=1")
    assert_same_runs(3)


def test_an_overflow_skips_its_step_alone(run: Run) -> None:
    overflow = ("--trainer.callbacks=tests.test_execution.Overflows", "--trainer.max_epochs=1")
    for steps in (1, 5):
        run("fit", "-c=fp16-cpu.yaml", *SETTINGS, *overflow, f"--model.steps_per_execution={steps}")
    assert last(0)["MixedPrecision"]["scale"] == 65536 / 4
    assert last(0)["optimizer_states"][0]["state"][0]["step"] == 21 - 2
    assert_same_runs(1)


class Overflows(Callback):
    """Makes the gradients of steps 3 and 9 overflow, even within an execution."""

    def __init__(self) -> None:
        self.step = 0

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step += 1
        if self.step in (3, 9):
            for parameter in pl_module.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)


def test_a_loss_that_is_not_finite_is_named_by_its_step(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("fit", *SETTINGS, "--trainer.callbacks=tests.test_execution.Spoil", "--model.steps_per_execution=5")
    assert "error: the loss of step 14 is not finite; " in capsys.readouterr().err


class Spoil(Callback):
    """Spoils the weights before the optimizer takes step 13."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 12:
            pl_module.model.fc2.bias.data[0] = torch.nan


@pytest.mark.parametrize(
    "accumulating",
    [
        ("--trainer.accumulate_grad_batches=2",),
        ("--trainer.callbacks=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"),
    ],
)
def test_accumulation_is_refused(refused: Refused, accumulating: tuple[str, ...]) -> None:
    assert refused("fit", "--model.steps_per_execution=4", *accumulating) == (
        "mnist-amp: error: model.steps_per_execution is 4, and gradients are to be accumulated over batches. These "
        "can't be combined. Leave one of them out.\n"
    )
    assert not Path("lightning_logs").exists()


def test_less_than_one_step_is_refused(refused: Refused) -> None:
    message = refused("fit", "--model.steps_per_execution=0")
    assert (
        message
        == "mnist-amp: error: model.steps_per_execution is 0; it must be at least 1. See mnist-amp fit --help.\n"
    )


def test_says_how_the_steps_run(run: Run) -> None:
    printed = run("fit", "-c=smoke.yaml", "--model.steps_per_execution=4")
    assert (
        "execution  4 optimizer steps at once, one after the other, as only a CUDA device has graphs\n"
        in printed.replace("execution   ", "execution  ")
    )


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Have graphs on a CPU; returns those that were made."""
    made: list[RecordedGraph] = []

    def make() -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(execution.Execution, "eager", lambda self, trainer: None)
    return made


@pytest.mark.parametrize(
    "settings",
    [("-c=fp32.yaml",), ("-c=fp32.yaml", *CLIP), ("-c=bf16.yaml", *SCHEDULE), ("-c=fp16-cpu.yaml", *SCHEDULE)],
    ids=["fp32", "clipped", "bf16", "fp16"],
)
def test_captured_steps_are_the_same_run(run: Run, graphs: list[RecordedGraph], settings: tuple[str, ...]) -> None:
    run("fit", *settings, *SETTINGS)
    assert not graphs
    printed = run("fit", *settings, *SETTINGS, "--model.steps_per_execution=4")
    # of 4 full batches, of 1, 2 and 3 between what is due, and the last of an epoch, with 40 images
    assert len(graphs) == 5
    assert "captured" in printed
    assert last(0)["global_step"] == 63
    if SCHEDULE[0] not in settings:
        assert_same_runs(1)
        return
    for key in ("loops", "lr_schedulers", "MixedPrecision", "global_step"):
        assert flat(last(1).get(key)) == flat(last(0).get(key)), key
    # a graph reads the learning rate of each step from memory, in float32
    torch.testing.assert_close(last(1)["state_dict"], last(0)["state_dict"], rtol=1e-4, atol=1e-6)
    groups = [runs["optimizer_states"][0]["param_groups"] for runs in (last(0), last(1))]
    assert groups[0] == groups[1]


def test_a_captured_overflow_skips_its_step_alone(run: Run, graphs: list[RecordedGraph]) -> None:
    scale = ("--trainer.plugins.init_args.scaler.init_args.init_scale=1e10",)
    for steps in (1, 5):
        run("fit", "-c=fp16-cpu.yaml", *SETTINGS, *scale, f"--model.steps_per_execution={steps}")
    assert graphs
    assert last(0)["MixedPrecision"]["scale"] < 1e10
    assert_same_runs(1)


def test_what_waits_for_the_host_is_not_captured(
    run: Run, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(execution, "warn", said.append)
    run("fit", *SETTINGS, "--model.steps_per_execution=4", "--trainer.callbacks=tests.test_execution.Waits")
    assert said == [
        "the steps are not captured as a CUDA graph, but run one after the other, as the capture failed: operation not "
        "permitted when stream is capturing"
    ]
    assert last(0)["global_step"] == 63


class Waits(Callback):
    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        try:
            pl_module.model.fc1.weight.sum().item()
        except HostSyncError as error:  # what torch raises when a stream is captured
            raise RuntimeError("operation not permitted when stream is capturing") from error


@NEEDS_CUDA
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("schedule", [(), SCHEDULE], ids=["", "schedule"])
def test_cuda_graphs_agree_with_eager_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch, precision: str, schedule: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    for steps in (1, 4):
        printed = run(
            "fit", *SETTINGS, *schedule, f"--trainer.precision={precision}", f"--model.steps_per_execution={steps}"
        )
    assert "4 optimizer steps at once, captured as CUDA graphs" in printed
    eager, captured = last(0), last(1)
    for name, weights in eager["state_dict"].items():
        torch.testing.assert_close(captured["state_dict"][name], weights, rtol=1e-3, atol=1e-4)
    assert captured.get("MixedPrecision") == eager.get("MixedPrecision")
    for key in ("loops", "lr_schedulers", "epoch", "global_step"):
        assert flat(captured[key]) == flat(eager[key]), key


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("config", ["fp32.yaml", "bf16.yaml", "fp16-cpu.yaml"])
def test_no_step_asks_for_a_value(run: Run, config: str, steps: int) -> None:
    """Which on a GPU would make the host wait for it."""
    Asks.found.clear()
    quiet = ("--trainer.log_every_n_steps=0", "--checkpoint.every_n_train_steps=0", "--trainer.limit_val_batches=0")
    asks = "--trainer.callbacks=tests.test_execution.Asks"
    run("fit", f"-c={config}", *SETTINGS, *quiet, asks, f"--model.steps_per_execution={steps}")
    assert last(0)["global_step"] == 63
    assert Asks.found == []


class Asks(Callback):
    """Notes which of a step's operations ask for a tensor's value."""

    found: ClassVar[list[Any]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.watch = NoteAsking(self.found)
        self.watch.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]


@NEEDS_CUDA
@pytest.mark.parametrize("steps", [1, 10])
def test_no_step_waits_for_the_device(run: Run, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    quiet = ("--trainer.log_every_n_steps=1000", "--checkpoint.every_n_train_steps=0", "--trainer.limit_val_batches=0")
    run(
        *("fit", *SETTINGS, *quiet, f"--model.steps_per_execution={steps}"),
        *("--trainer.callbacks=tests.test_execution.NoWaiting", "--trainer.max_epochs=2"),
    )
    assert runs.read(Path("lightning_logs/version_0/checkpoints/last.ckpt"))["global_step"] == 42


class NoWaiting(Callback):
    """Makes a host synchronisation within the steps of the second epoch an error."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        torch.cuda.set_sync_debug_mode("default")
