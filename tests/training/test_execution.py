"""Several steps per execution: the same steps, metrics and checkpoints as with one step per execution."""

import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.loader import Batch
from mnist_amp.lightning_internals import set_step_result
from mnist_amp.module import LitClassifier
from mnist_amp.training import execution, resumable_module
from mnist_amp.training.cuda_graph import StepGraph
from tests.conftest import Refused, Run
from tests.recorded_graph import Capture, HostSyncError, RecordedGraph, RecordHostSyncs
from tests.runs.test_exact import KEPT, interrupted, last, logged, resume
from tests.runs.test_resume import flat
from tests.training.small_trainer import small_trainer

# 21 batches an epoch, the last of 40 images
SETTINGS = (
    *("--trainer.max_epochs=3", "--data.val_size=59000", "--data.batch_size=48", "--trainer.limit_val_batches=4"),
    *("--trainer.log_every_n_steps=5", "--checkpoint.every_n_train_steps=7"),
)
SCHEDULE = (
    *("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.98", "--model.lr_scheduler_interval=step"),
    "--optimizer.lr=0.004",
)
BF16_TRUE = ("--trainer.precision=bf16-true", "--trainer.plugins=null")
CLIP = ("--trainer.gradient_clip_val=0.3",)
CLIP_VALUES = ("--trainer.gradient_clip_val=0.01", "--trainer.gradient_clip_algorithm=value")


class KeptExecution(Callback):
    """Keeps the execution of a fit, to inspect it afterwards."""

    ended: ClassVar[execution.Execution]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        type(self).ended = copy.copy(cast(LitClassifier, pl_module).execution)  # which keeps less after the fit


KEPT_EXECUTION = "--trainer.callbacks+=tests.training.test_execution.KeptExecution"


class ExecutionEnds(Callback):
    """Notes the steps after which executions end."""

    once_per_execution = True
    ends: ClassVar[list[int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ends.append(trainer.global_step)


def assert_same_runs(version: int, reference: int = 0) -> None:
    expected, found = last(reference), last(version)
    for key in KEPT:
        assert flat(found.get(key)) == flat(expected.get(key)), key
    assert logged(version) == logged(reference)


@pytest.mark.parametrize("steps", [4, 50])
@pytest.mark.parametrize(
    "settings",
    [("-c=fp32.yaml", *SCHEDULE), ("-c=bf16.yaml", "--trainer.val_check_interval=6"), ("-c=fp16-cpu.yaml",)],
    ids=["fp32", "bf16", "fp16"],
)
@pytest.mark.parametrize("clip", [(), CLIP, CLIP_VALUES], ids=["", "norm", "value"])
def test_the_same_run(run: Run, fitted: Run, steps: int, settings: tuple[str, ...], clip: tuple[str, ...]) -> None:
    fitted(*settings, *clip, *SETTINGS, "--model.steps_per_execution=1")
    run("fit", *settings, *clip, *SETTINGS, f"--model.steps_per_execution={steps}")
    assert last(0)["global_step"] == 63
    assert_same_runs(1)


@pytest.mark.parametrize("settings", [("-c=fp32.yaml",), ("-c=bf16.yaml", *SCHEDULE), ("-c=fp16-cpu.yaml",)])
@pytest.mark.parametrize("more", [(), CLIP, ("--trainer.accumulate_grad_batches=2",), BF16_TRUE])
def test_direct_steps_are_those_of_lightning(run: Run, settings: tuple[str, ...], more: tuple[str, ...]) -> None:
    run("fit", *settings, *SETTINGS, *more, KEPT_EXECUTION)
    is_accumulated = any("accumulate" in option for option in more)
    assert (KeptExecution.ended.direct is None) == is_accumulated
    run("fit", *settings, *SETTINGS, *more, KEPT_EXECUTION, "--trainer.callbacks+=tests.training.test_execution.Hooked")
    assert KeptExecution.ended.direct is None
    assert_same_runs(1)


class LitLogs(LitClassifier):
    """Logs in its step, and takes batches that are no `Batch`; it has a `zero_grad` to call, see `CountingSGD`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = super().training_step(Batch(images, labels, labels), batch_idx)
        self.log("mean", images.mean(), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return CountingSGD(self.parameters(), lr=0.1)


class CountingSGD(torch.optim.SGD):
    zeroed = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.zeroed += 1
        super().zero_grad(set_to_none)


class Images(IterableDataset[tuple[Tensor, Tensor]]):
    """104 images in an unknown number of batches."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(104):
            yield torch.full((1, 28, 28), float(number)), torch.tensor(number % 10)


@pytest.mark.parametrize("steps", [1, 5, "auto"])
def test_a_module_of_the_user_with_any_loader(steps: Any) -> None:
    trainer = small_trainer(max_epochs=2)
    module = LitLogs(steps_per_execution=steps)
    trainer.fit(module, DataLoader(Images(), batch_size=16))
    progress = trainer.fit_loop.epoch_loop.batch_progress
    assert (trainer.global_step, progress.current.ready, progress.current.completed) == (14, 7, 7)
    assert trainer.callback_metrics["mean"].item() == pytest.approx(51.5)  # the last batch has 8 images
    assert cast(CountingSGD, trainer.optimizers[0]).zeroed == 14
    assert len(pickle.dumps(module)) < 1_000_000  # without the Trainer


def test_a_transfer_of_the_data_is_called_for_each_batch() -> None:
    moved = []

    class Moves(ClassificationDataModule):
        def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
            moved.append(len(batch.labels))
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    trainer = small_trainer(limit_train_batches=12)
    trainer.fit(LitClassifier(), Moves(batch_size=32, val_size=0))
    assert moved == [32] * 12


class Hooked(Callback):
    """Has a hook within the step, so Lightning takes the steps itself."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert pl_module.model.fc1.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seconds", "ends"), [(1e9, [5, 7, 10, 14, 15, 20, 21]), (0.0, list(range(1, 22)))], ids=["quick", "slow"]
)
def test_auto_takes_steps_until_something_is_due_or_the_time_is_over(
    run: Run, monkeypatch: pytest.MonkeyPatch, seconds: float, ends: list[int]
) -> None:
    monkeypatch.setattr(execution, "AUTO_SECONDS", seconds)
    callback = "--trainer.callbacks=tests.training.test_execution.ExecutionEnds"
    run("fit", *SETTINGS, "--trainer.max_epochs=1", callback)
    assert ExecutionEnds.ends == ends


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--trainer.accumulate_grad_batches=2",), "gradients are accumulated over batches"),
        (("--trainer.profiler=simple",), "SimpleProfiler measures each step"),
        (
            ("--trainer.callbacks=tests.training.test_batch_hooks.SeenBatches",),
            "on_train_batch_end of SeenBatches may need each step",
        ),
    ],
)
def test_auto_takes_single_steps_where_several_could_change_something(
    run: Run, options: tuple[str, ...], reason: str
) -> None:
    printed = run("fit", "-c=smoke.yaml", *options)
    assert re.search(rf"^execution +1 optimizer step per execution, because {reason}", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("device", "processes", "reason"),
    [
        ("cpu", 2, "the processes of a run must end their executions after the same steps"),
        # as long as no test has run on one
        (
            *("cuda", 1),
            "CUDA graphs were never tried on a GPU. Use --model.steps_per_execution 50 to try them",
        ),
    ],
)
def test_auto_takes_single_steps_in_several_processes_and_on_a_gpu(device: str, processes: int, reason: str) -> None:
    trainer: Any = SimpleNamespace(
        **{"callbacks": [], "accumulate_grad_batches": 1, "world_size": processes, "profiler": PassThroughProfiler()},
        **{"strategy": SimpleNamespace(root_device=torch.device(device)), "lightning_module": LitClassifier()},
    )
    described = LitClassifier().execution.describe(trainer)
    assert described == f"1 optimizer step per execution, because {reason}"


def test_executions_end_where_something_is_due(run: Run) -> None:
    callback = ("--trainer.callbacks=tests.training.test_execution.ExecutionEnds", "--trainer.val_check_interval=8")
    run("fit", *SETTINGS, *callback, "--trainer.max_steps=31", "--model.steps_per_execution=4")
    # 5, 10, ...: a log row; 7, 14, ...: a checkpoint; 8, 16 and 29: a validation; 21: an epoch's end; 31: the last
    assert ExecutionEnds.ends == [4, 5, 7, 8, 10, 14, 15, 16, 20, 21, 25, 28, 29, 30, 31]


def test_batches_on_the_device_are_not_moved_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    move, moved = SingleDeviceStrategy.batch_to_device, []

    def counted(self: SingleDeviceStrategy, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        moved.append(len(batch.labels))
        return move(self, batch, device, dataloader_idx)

    monkeypatch.setattr(SingleDeviceStrategy, "batch_to_device", counted)
    quiet = ("--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=0", "--checkpoint.every_n_train_steps=0")
    run("fit", *SETTINGS, *quiet, "--model.steps_per_execution=10")
    assert moved == [48, 48, 40] * 3  # the first of each execution, by Lightning


@pytest.mark.parametrize("hook", execution.TRANSFER_HOOKS)
def test_transfer_hooks_run_for_all_batches(run: Run, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    def invert(self: LitClassifier, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(images=-batch.images)

    monkeypatch.setattr(LitClassifier, hook, invert)
    for steps in (1, 10):
        run("fit", *SETTINGS, f"--model.steps_per_execution={steps}")
    assert_same_runs(1)


def test_values_logged_at_the_start_of_a_step_are_the_same(run: Run) -> None:
    monitor = ("--trainer.callbacks=LearningRateMonitor", "--trainer.callbacks.logging_interval=step")
    for steps in (1, 20):
        run("fit", *SETTINGS, *SCHEDULE, *monitor, f"--model.steps_per_execution={steps}")
    rows = [event[1:] for event in logged(0)[1] if event[0] == "lr-Adam"]
    assert [step for step, _ in rows] == list(range(4, 63, 5))
    assert [rate for _, rate in rows] == pytest.approx([0.004 * 0.98**step for step, _ in rows])
    assert logged(1) == logged(0)


def test_executions_end_before_a_log_row_if_a_callback_has_on_train_batch_start(run: Run) -> None:
    callbacks = (
        "--trainer.callbacks=tests.training.test_execution.FindsHostSyncs",
        "--trainer.callbacks+=tests.training.test_execution.ExecutionEnds",
    )
    quiet = ("--checkpoint.every_n_train_steps=0", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=8")
    run("fit", *SETTINGS, *quiet, *callbacks, "--model.steps_per_execution=6")
    assert ExecutionEnds.ends == [6, 7, 8, 14, 15, 16, 21]


def test_resume_with_another_number_of_steps(run: Run, fitted: Run) -> None:
    fitted(*SETTINGS, *SCHEDULE)
    interrupted(run, 10, *SETTINGS, *SCHEDULE, "--model.steps_per_execution=4")
    interrupted(run, 40, "--ckpt_path=last", "--model.steps_per_execution=3")
    resume(run, "--model.steps_per_execution=1")
    assert_same_runs(3)


def test_an_overflow_skips_its_step_alone(run: Run) -> None:
    overflow = ("--trainer.callbacks=tests.training.test_execution.Overflows", "--trainer.max_epochs=1")
    for steps in (1, 5):
        run("fit", "-c=fp16-cpu.yaml", *SETTINGS, *overflow, f"--model.steps_per_execution={steps}")
    assert last(0)["MixedPrecision"]["scale"] == 65536 / 4
    assert last(0)["optimizer_states"][0]["state"][0]["step"] == 21 - 2
    assert_same_runs(1)


class Overflows(Callback):
    """Makes the gradients of steps 3 and 9 overflow; it counts the steps within executions."""

    def __init__(self) -> None:
        self.step = 0

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step += 1
        if self.step in (3, 9):
            for parameter in pl_module.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)


def test_the_message_names_the_step_of_a_loss_that_is_not_finite(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(
            "fit",
            *SETTINGS,
            "--trainer.callbacks=tests.training.test_execution.Corrupts",
            "--model.steps_per_execution=5",
        )
    assert "error: the loss of step 14 is not finite; " in capsys.readouterr().err


class Corrupts(Callback):
    """Makes a weight NaN before the optimizer takes step 13."""

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
        "mnist-amp: error: model.steps_per_execution is 4, and gradients are accumulated over batches. These can't "
        "be combined. Leave one of them out.\n"
    )
    assert not Path("lightning_logs").exists()


def test_another_word_than_auto_is_refused(refused: Refused) -> None:
    assert refused("fit", "--model.steps_per_execution=fast") == (
        "mnist-amp: error: model.steps_per_execution can't be fast; it takes auto or a whole number. "
        "See mnist-amp fit --help.\n"
    )


def test_less_than_one_step_is_refused(refused: Refused) -> None:
    message = refused("fit", "--model.steps_per_execution=0")
    assert (
        message
        == "mnist-amp: error: model.steps_per_execution is 0; it must be at least 1. See mnist-amp fit --help.\n"
    )


def test_the_banner_describes_the_execution(run: Run) -> None:
    printed = run("fit", "-c=smoke.yaml", "--model.steps_per_execution=4")
    assert (
        "execution  4 optimizer steps per execution, one after the other because only a CUDA device has graphs\n"
        in printed.replace("execution   ", "execution  ")
    )
    assert "replayed" not in printed
    printed = run("fit", "-c=smoke.yaml")
    assert re.search(r"^execution +up to 50 optimizer steps per execution, for up to 0.1 s$", printed, re.MULTILINE)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Replace CUDA graphs by recorded graphs, on a CPU; returns the graphs that are created."""
    made: list[RecordedGraph] = []

    def make() -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(execution.Execution, "obstacle", lambda self, trainer: None)
    # the host does not know it on a GPU with a fused optimizer
    monkeypatch.setattr(resumable_module, "newest_step_was_skipped", lambda trainer: False)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        ("-c=fp32.yaml",),
        ("-c=fp32.yaml", *CLIP),
        ("-c=fp32.yaml", "--optimizer=SGD", "--optimizer.lr=0.1", "--optimizer.momentum=0.9"),
        ("-c=bf16.yaml", *SCHEDULE),
        ("-c=fp16-cpu.yaml", *SCHEDULE),
        ("-c=bf16.yaml", *CLIP),
        ("-c=bf16.yaml", *CLIP_VALUES),
        ("-c=fp16-cpu.yaml", *CLIP),
        ("-c=fp16-cpu.yaml", *CLIP_VALUES),
    ],
    ids=["fp32", "clipped", "sgd", "bf16", "fp16", "bf16-norm", "bf16-value", "fp16-norm", "fp16-value"],
)
def test_captured_steps_are_the_same_run(run: Run, graphs: list[RecordedGraph], settings: tuple[str, ...]) -> None:
    # a graph reads the learning rate of each step from memory, in float32
    rounding = ("--trainer.callbacks=tests.training.test_execution.RoundedRates",) if SCHEDULE[0] in settings else ()
    run("fit", *settings, *SETTINGS, *rounding, "--model.steps_per_execution=1")
    assert not graphs
    printed = run("fit", *settings, *SETTINGS, *rounding, "--model.steps_per_execution=4")
    # for 4 full batches, for 1 and 2 before something is due, and for the last batch of an epoch, with 40 images
    assert len(graphs) == 4
    assert re.search(r"^execution +4 optimizer steps per execution, captured as CUDA graphs$", printed, re.MULTILINE)
    # all except the first 7 (4, 1 and 2), and the first of 40 images
    assert (
        "\nexecution  55 of 63 optimizer steps replayed as CUDA graphs; the others ran before the capture\n" in printed
    )
    assert last(0)["global_step"] == 63
    assert_same_runs(1)


class RoundedRates(Callback):
    """Rounds the learning rate to float32 for the optimizer alone; the schedule advances the exact one."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        optimizer.register_step_pre_hook(self._round)
        optimizer.register_step_post_hook(self._restore)

    def _round(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            if isinstance(rate, float):  # a graph gives the optimizer a float32 tensor
                group["lr"] = torch.tensor(rate, dtype=torch.float32).item()

    def _restore(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (7, [4, 2, 1]), (16, [16]), (18, [16, 2]), (19, [16, 2, 1]), (20, [20])],
)
def test_executions_are_split_into_groups_of_few_sizes(count: int, parts: list[int]) -> None:
    images, small = (Batch(*(torch.zeros(size) for _ in range(3))) for size in (48, 40))
    groups = list(execution._groups([images] * count, 20))
    assert [[id(batch) for batch in group] for group in groups] == [[id(images)] * part for part in parts]
    if count < 20:
        groups = list(execution._groups([images] * count + [small], 20))
        assert [(len(group), len(group[0].labels)) for group in groups] == [*((part, 48) for part in parts), (1, 40)]


@pytest.mark.usefixtures("graphs")
def test_few_graphs_are_captured(run: Run) -> None:
    uneven = ("--trainer.log_every_n_steps=11", "--checkpoint.every_n_train_steps=0", "--trainer.max_epochs=8")
    run("fit", *SETTINGS, *uneven, "--model.steps_per_execution=10", KEPT_EXECUTION)
    assert KeptExecution.ended.reason is None
    made = {key for key, graph in KeptExecution.ended.graphs.items() if graph is not None}
    assert made == {(10, 48, 0.001), (8, 48, 0.001), (4, 48, 0.001), (2, 48, 0.001), (1, 48, 0.001), (1, 40, 0.001)}


@pytest.mark.usefixtures("graphs")
def test_the_autograd_graph_of_an_eager_step_is_freed_before_a_capture(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nodes belong to the default stream, so they would make the capture fail."""
    capture, sizes, alive = StepGraph.capture, [], []

    def watched(module: LitClassifier, batches: list[Batch], optimizer: Any, closure: Closure) -> StepGraph:
        sizes.append((len(batches), len(batches[0].labels)))
        alive.append(has_result(closure))
        return capture(module, batches, optimizer, closure)

    monkeypatch.setattr(StepGraph, "capture", watched)
    quiet = ("--trainer.log_every_n_steps=9", "--checkpoint.every_n_train_steps=0", "--trainer.max_epochs=2")
    run("fit", *SETTINGS, *quiet, "--model.steps_per_execution=20")
    # 8+1 eager, 8+1 captured, 2 and the last of 40 images eager; 4 eager and then 2 captured; 8+1, and 4 and the last
    assert sizes == [(8, 48), (1, 48), (2, 48), (4, 48), (1, 40)]
    assert alive == [False] * 5


def has_result(closure: Closure) -> bool:
    try:
        set_step_result(closure, closure.consume_result().closure_loss)
    except MisconfigurationException:
        return False
    return True


def test_a_captured_overflow_skips_its_step_alone(run: Run, graphs: list[RecordedGraph]) -> None:
    scale = ("--trainer.plugins.init_args.scaler.init_args.init_scale=1e10",)
    for steps in (1, 5):
        run("fit", "-c=fp16-cpu.yaml", *SETTINGS, *scale, f"--model.steps_per_execution={steps}")
    assert graphs
    assert last(0)["MixedPrecision"]["scale"] < 1e10
    assert_same_runs(1)


def test_steps_that_wait_for_the_device_are_not_captured(
    run: Run, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(execution, "warn", warnings.append)
    printed = run(
        "fit", *SETTINGS, "--model.steps_per_execution=4", "--trainer.callbacks=tests.training.test_execution.Waits"
    )
    reason = "the capture failed: operation not permitted when stream is capturing"
    assert warnings == [f"the steps are not captured as a CUDA graph, but run one after the other because {reason}"]
    assert (
        f"\nexecution  0 of 63 optimizer steps replayed as CUDA graphs; all ran one after the other because {reason}\n"
        in printed
    )
    assert last(0)["global_step"] == 63


class Waits(Callback):
    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        try:
            pl_module.model.fc1.weight.sum().item()
        except HostSyncError as error:  # torch raises a RuntimeError while a stream is captured
            raise RuntimeError("operation not permitted when stream is capturing\nFor debugging ...") from error


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_overflows_within_graphs_are_those_of_eager_steps(run: Run, request: Any, device: str) -> None:
    if device == "cpu":
        request.getfixturevalue("graphs")
    plugin = "--trainer.plugins.init_args"
    settings = (
        *("-c=fp16-cpu.yaml", f"--trainer.accelerator={device}", f"{plugin}.device={device}"),
        *(f"{plugin}.scaler.init_args.device={device}", f"{plugin}.scaler.init_args.init_scale=1e10"),
        *("--trainer.log_every_n_steps=0", "--checkpoint.every_n_train_steps=0", "--trainer.max_epochs=2"),
        *(KEPT_EXECUTION, "--trainer.callbacks+=tests.training.test_execution.Scales"),
    )
    run("fit", *SETTINGS, *settings, "--model.steps_per_execution=1")
    eager = dict(Scales.seen)
    assert list(eager) == list(range(1, 43))
    run("fit", *SETTINGS, *settings, "--model.steps_per_execution=4")
    # all 42 steps except the first 4 and the first of 40 images
    assert KeptExecution.ended.outcome() == (37, 42, None)
    assert list(Scales.seen) == [4, 8, 12, 16, 20, 21, 25, 29, 33, 37, 41, 42]
    assert {step: eager[step] for step in Scales.seen} == Scales.seen
    # steps 5 to 8, the first that are replayed, all overflow; later ones do not
    assert Scales.seen[8] == (1e10 / 2**8, 0)
    assert Scales.seen[42] == (Scales.seen[41][0], Scales.seen[41][1] + 1)


class Scales(Callback):
    """Notes the loss scale and Adam's own count of steps after each execution."""

    once_per_execution = True
    seen: ClassVar[dict[int, tuple[float, int]]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        (count,) = {int(state["step"]) for state in trainer.optimizers[0].state.values()}
        self.seen[trainer.global_step] = (trainer.precision_plugin.scaler.get_scale(), count)  # type: ignore[attr-defined]


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    "schedule", [(), SCHEDULE, CLIP, CLIP_VALUES], ids=["", "schedule", "clipped norm", "clipped values"]
)
def test_cuda_graphs_agree_with_eager_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch, precision: str, schedule: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    for steps in (1, 4):
        settings = (*schedule, f"--trainer.precision={precision}", f"--model.steps_per_execution={steps}")
        printed = run("fit", *SETTINGS, *settings, KEPT_EXECUTION)
    assert "4 optimizer steps per execution, captured as CUDA graphs" in printed
    assert KeptExecution.ended.outcome() == (55, 63, None)  # see test_captured_steps_are_the_same_run
    eager, captured = last(0), last(1)
    for name, weights in eager["state_dict"].items():
        torch.testing.assert_close(captured["state_dict"][name], weights, rtol=1e-3, atol=1e-4)
    assert captured.get("MixedPrecision") == eager.get("MixedPrecision")
    for key in ("loops", "lr_schedulers", "epoch", "global_step"):
        assert flat(captured[key]) == flat(eager[key]), key


@pytest.mark.cuda
def test_steps_follow_a_capture_that_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run one after the other, also if they draw random numbers."""
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    training_step = LitClassifier.training_step

    def waiting(self: LitClassifier, batch: Batch, batch_idx: int) -> Any:
        loss = training_step(self, batch._replace(images=torch.nn.functional.dropout(batch.images)), batch_idx)
        assert loss.item() > 0  # an error during a capture
        return loss

    monkeypatch.setattr(LitClassifier, "training_step", waiting)
    run("fit", *SETTINGS, "--model.steps_per_execution=4", KEPT_EXECUTION)
    outcome = KeptExecution.ended.outcome()
    assert outcome is not None
    assert (outcome.replayed, outcome.taken) == (0, 63)
    assert outcome.reason is not None
    assert outcome.reason.startswith("the capture failed: ")
    assert last(0)["global_step"] == 63


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("config", ["fp32.yaml", "bf16.yaml", "fp16-cpu.yaml"])
@pytest.mark.parametrize("clip", [(), CLIP, CLIP_VALUES], ids=["", "norm", "value"])
def test_no_step_reads_the_value_of_a_tensor(run: Run, config: str, steps: int, clip: tuple[str, ...]) -> None:
    """On a GPU the host would wait for the value."""
    FindsHostSyncs.found.clear()
    quiet = ("--trainer.log_every_n_steps=0", "--checkpoint.every_n_train_steps=0", "--trainer.limit_val_batches=0")
    finds = "--trainer.callbacks=tests.training.test_execution.FindsHostSyncs"
    run("fit", f"-c={config}", *SETTINGS, *quiet, *clip, finds, f"--model.steps_per_execution={steps}")
    assert last(0)["global_step"] == 63
    assert FindsHostSyncs.found == []


class FindsHostSyncs(Callback):
    """Finds the operations of a step that read the value of a tensor."""

    once_per_execution = True
    found: ClassVar[list[Any]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.watch = RecordHostSyncs(self.found)
        self.watch.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]


@pytest.mark.cuda
@pytest.mark.parametrize(("steps", "outcome"), [(1, None), (10, (52, 63, None))])
@pytest.mark.parametrize("schedule", [(), SCHEDULE, CLIP], ids=["", "schedule", "clipped"])
def test_no_step_waits_for_the_device(
    run: Run, monkeypatch: pytest.MonkeyPatch, steps: int, outcome: Any, schedule: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    quiet = ("--trainer.log_every_n_steps=1000", "--checkpoint.every_n_train_steps=0", "--trainer.limit_val_batches=0")
    run(
        *("fit", *SETTINGS, *quiet, *schedule, f"--model.steps_per_execution={steps}", KEPT_EXECUTION),
        "--trainer.callbacks+=tests.training.test_execution.NoWaiting",
    )
    assert last(0)["global_step"] == 63
    # the first 10, and the first of 40 images, run before the capture
    assert KeptExecution.ended.outcome() == outcome


class NoWaiting(Callback):
    """Makes a host synchronisation within the steps of the third epoch an error; all graphs are captured by then."""

    once_per_execution = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        torch.cuda.set_sync_debug_mode("default")
