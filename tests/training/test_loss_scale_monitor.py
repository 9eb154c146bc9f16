"""The monitor of the loss scale, and skipped steps, in real fp16 on a CPU."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision

from mnist_amp.__main__ import main
from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from mnist_amp.training.clipping import clip_gradients
from mnist_amp.training.gradient_scaler import CountingGradScaler
from mnist_amp.training.loss_scale_monitor import gradient_metrics, metrics_before_clipping
from tests.conftest import Run, simple_nn
from tests.training.small_trainer import small_trainer

FP16 = (
    "--config=configs/smoke.yaml",
    "--config=configs/fp16-cpu.yaml",
    "--trainer.limit_train_batches=12",
    "--trainer.limit_val_batches=0",
)
LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")


def errors(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run the command; returns what it wrote to stderr."""
    main(list(args))
    return capsys.readouterr().err


class HugeLoss(Callback):
    """Makes the loss of some optimizer steps (counted from 1) so large that their fp16 gradients overflow."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        real = pl_module.training_step

        def training_step(batch: Any, batch_idx: int) -> Any:
            loss: Any = real(batch, batch_idx)
            return loss * (1e30 if trainer.global_step + 1 in self.steps else 1)

        pl_module.training_step = training_step  # type: ignore[method-assign]


def huge(*steps: int) -> tuple[str, ...]:
    return (
        "--trainer.callbacks=tests.training.test_loss_scale_monitor.HugeLoss",
        f"--trainer.callbacks.steps={list(steps)}",
    )


def logged(*names: str, version: int = 0) -> list[tuple[float, ...]]:
    with Path(f"lightning_logs/version_{version}/metrics.csv").open() as file:
        return [tuple(float(row[name]) for name in names) for row in csv.DictReader(file) if row["loss_scale"]]


@pytest.mark.parametrize("options", [(), ("--optimizer.fused=false",), ("--model.steps_per_execution=5",)])
def test_exactly_the_planted_steps_are_skipped(run: Run, options: tuple[str, ...]) -> None:
    run("fit", *FP16, *huge(3, 7, 8), *options)
    scales = [65536, 65536, 32768, 32768, 32768, 32768, 16384, *[8192] * 5]
    skipped = [0, 0, 1, 1, 1, 1, 2, *[3] * 5]
    assert logged("step", "loss_scale", "skipped_steps") == list(zip(range(12), scales, skipped, strict=True))
    assert [step for step, (norm,) in enumerate(logged("grad_norm")) if norm == math.inf] == [2, 6, 7]
    checkpoint = checkpoint_files.read(LAST)
    assert checkpoint["global_step"] == 12
    assert checkpoint["optimizer_states"][0]["state"][0]["step"] == 9
    assert (checkpoint["MixedPrecision"]["scale"], checkpoint["MixedPrecision"]["skipped"]) == (8192, 3)


def test_metrics_are_logged_only_at_the_logging_interval(run: Run) -> None:
    run("fit", *FP16, *huge(3, 7), "--trainer.log_every_n_steps=4")
    assert logged("step", "loss_scale", "skipped_steps") == [(3, 32768, 1), (7, 16384, 2), (11, 16384, 2)]


def test_nothing_is_logged_without_a_scaler(run: Run) -> None:
    run("fit", "--config=configs/smoke.yaml")
    assert "loss_scale" not in Path("lightning_logs/version_0/metrics.csv").read_text()


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_the_norm_is_of_the_unscaled_gradients(run: Run, optimizer: str, fused: str) -> None:
    """The first step's gradients do not depend on the scale, except for rounding in fp16."""
    options = (f"--optimizer={optimizer}", "--optimizer.lr=0.001", f"--optimizer.fused={fused}")
    for scale in ("1024", "4096"):
        run("fit", *FP16, *options, f"--scaler.init_scale={scale}", "--trainer.limit_train_batches=2")
    run("fit", "--config=configs/smoke.yaml", *options, "--trainer.precision=32-true", *watched(1))
    (small,), (large,) = logged("grad_norm")[0], logged("grad_norm", version=1)[0]
    assert small == pytest.approx(large, rel=1e-2)
    assert small == pytest.approx(Watch.norm, rel=1e-2)


class Watch(Callback):
    """Keeps the norm of the gradients of a step."""

    norm = 0.0

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step + 1 == self.step:
            Watch.norm = float(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]))  # type: ignore[misc]


def watched(step: int) -> tuple[str, ...]:
    return ("--trainer.callbacks=tests.training.test_loss_scale_monitor.Watch", f"--trainer.callbacks.step={step}")


@pytest.mark.parametrize("clip", [0.001, 100.0])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("fused", ["true", "false"])
def test_the_norm_is_of_the_gradients_before_clipping(
    run: Run, fitted: Run, fused: str, algorithm: str, clip: float
) -> None:
    one = (*FP16, "--trainer.limit_train_batches=1", f"--optimizer.fused={fused}")
    fitted(*one)
    run("fit", *one, f"--trainer.gradient_clip_val={clip}", f"--trainer.gradient_clip_algorithm={algorithm}")
    assert logged("grad_norm") == logged("grad_norm", version=1)


@pytest.mark.parametrize("clip", [0.25, 100.0])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_the_underflow_is_of_the_gradients_before_clipping(clip: float, algorithm: Any) -> None:
    """Of the values that are not zero, 1 in 4 is less than 2^-25. After the clipping of the norm it would be 3 in 4."""
    module = LitClassifier(simple_nn(1))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    bias = module.get_parameter("model.fc2.bias")
    bias.grad[:4] = torch.tensor([3.0, 4.0 * 2.0**-25, -5.0 * 2.0**-25, 2.0**-26])  # type: ignore[index]
    module.trainer = small_trainer(gradient_clip_val=clip, gradient_clip_algorithm=algorithm)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=CountingGradScaler("cpu"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.grad_norm = clip_gradients(plugin, optimizer, clip, algorithm)
    found = metrics_before_clipping(module.trainer, module)
    assert found.grad_norm.item() == pytest.approx(3.0)
    assert found.fp16_underflow.item() == 0.25


def test_gradient_metrics() -> None:
    gradients = [torch.tensor([3.0, 0.0, 2.0**-24, 2.0**-26]), torch.tensor([4.0, -(2.0**-25), -(2.0**-40), 0.0])]
    # 2^-25 lies between zero and fp16's smallest number, and is rounded to zero, the even one
    assert {name: float(value) for name, value in gradient_metrics(gradients)._asdict().items()} == {
        "grad_norm": 5.0,
        "fp16_underflow": 0.5,
    }


@pytest.mark.usefixtures("run")
def test_skips_again_and_again_are_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = errors(capsys, "fit", *FP16, *huge(1, 3, 5, 7, 9, 12), "--trainer.log_every_n_steps=2")
    assert warnings == (
        "mnist-amp: warning: steps are skipped again and again because their fp16 gradients overflow: 3 of the last 6. "
        "The loss scale is down to 8192. If this continues, try a lower learning rate, gradient clipping, or "
        "bf16-mixed.\n"
    )


def test_a_collapsed_scale_ends_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step for step in range(1, 40) if step % 3]
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *FP16, "--trainer.limit_train_batches=40", *huge(*steps), "--scaler.init_scale=1")
    assert exit_info.value.code == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(
            "mnist-amp: error: the loss scale has collapsed to 6.1e-05 because the fp16 gradients of 14 of 20 steps "
            "overflowed; the run is stopped. There is no checkpoint yet. "
        )
    )


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.filterwarnings("error:Detected call of `lr_scheduler.step")
def test_a_schedule_does_not_advance_on_a_skipped_step(run: Run, fused: str) -> None:
    """On a CPU the host knows it in either case. torch would warn if the schedule advanced after the skipped step 1."""
    schedule = ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5")
    options = ("--model.lr_scheduler_interval=step", f"--optimizer.fused={fused}")
    run("fit", *FP16, *schedule, *options, *huge(1, 4, 5))
    (state,) = checkpoint_files.read(LAST)["lr_schedulers"]
    assert (state["last_epoch"], state["_last_lr"]) == (9, [0.001 * 0.5**9])
