"""The clipping of gradients in each precision, of fused optimizers and of others."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from mnist_amp.runs import checkpoint_files
from tests.conftest import Run

CONFIGS = ("fp32.yaml", "bf16.yaml", "fp16-cpu.yaml")
CLIPS = {"norm": 0.3, "value": 0.01}
WATCHED = "--trainer.callbacks=tests.training.test_clipping.Gradients"


class Gradients(Callback):
    """Notes the norm and the largest value of the gradients of each step, and whether the optimizer is fused."""

    norms: ClassVar[list[float]] = []
    values: ClassVar[list[float]] = []
    fused: ClassVar[bool]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.norms.clear()
        self.values.clear()
        (optimizer,) = trainer.optimizers
        Gradients.fused = bool(optimizer.defaults["fused"])
        # after the step, because without a GradScaler the gradients are computed within it
        optimizer.register_step_post_hook(self._note)

    def _note(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        given = [parameter.grad for parameter in optimizer.param_groups[0]["params"]]
        self.norms.append(float(torch.nn.utils.get_total_norm(given)))
        self.values.append(max(float(gradient.abs().max()) for gradient in given))


def clipped(run: Run, config: str, algorithm: str, *settings: str) -> dict[str, Any]:
    """Fit with clipped gradients, and return the weights."""
    run(
        *("fit", f"--config={config}", "--config=smoke.yaml", f"--trainer.gradient_clip_val={CLIPS[algorithm]}"),
        *(f"--trainer.gradient_clip_algorithm={algorithm}", *settings),
        WATCHED,
    )
    newest = len(list(Path("lightning_logs").glob("version_*"))) - 1
    weights: dict[str, Any] = checkpoint_files.read(Path(f"lightning_logs/version_{newest}/checkpoints/last.ckpt"))[
        "state_dict"
    ]
    return weights


@pytest.mark.parametrize("algorithm", CLIPS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("fused", [(), ("--optimizer.fused=true",), ("--optimizer.fused=false",)])
def test_the_step_gets_clipped_gradients(run: Run, config: str, algorithm: str, fused: tuple[str, ...]) -> None:
    clipped(run, config, algorithm, *fused)
    assert Gradients.fused is (fused != ("--optimizer.fused=false",))
    found = Gradients.norms if algorithm == "norm" else Gradients.values
    assert len(found) == 8
    # a sum of squares in float32 may round up the norm
    assert max(found) == pytest.approx(CLIPS[algorithm], rel=1e-4)
    run("fit", f"--config={config}", "--config=smoke.yaml", WATCHED)
    found = Gradients.norms if algorithm == "norm" else Gradients.values
    assert min(found) > CLIPS[algorithm] * 1.1


@pytest.mark.parametrize("algorithm", CLIPS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_fused_step_is_that_of_an_unfused_optimizer(run: Run, config: str, algorithm: str, optimizer: str) -> None:
    """The gradients of the first step are the same bits. Its update is rounded in another order."""
    one = (f"--optimizer={optimizer}", "--optimizer.lr=0.001", "--trainer.limit_train_batches=1")
    trained = [clipped(run, config, algorithm, *one, f"--optimizer.fused={fused}") for fused in ("true", "false")]
    before = {name: weight.abs().max() for name, weight in trained[0].items()}
    for name, weight in trained[0].items():
        # a step changes a weight by at most 0.001; its arithmetic is some ten float32 operations, and the sum is one
        tolerance = 2**-23 * (16 * 0.001 + float(before[name]))
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=tolerance)


@pytest.mark.parametrize("config", CONFIGS)
def test_clipping_changes_the_weights(run: Run, config: str) -> None:
    weights = clipped(run, config, "norm", "--optimizer=SGD", "--optimizer.lr=0.1")["model.fc2.weight"]
    run("fit", f"--config={config}", "--config=smoke.yaml", "--optimizer=SGD", "--optimizer.lr=0.1")
    other = checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))["state_dict"]
    assert float((weights - other["model.fc2.weight"]).abs().max()) > 1e-3


def test_an_overflow_is_skipped(run: Run) -> None:
    """An infinite norm would turn all gradients into zero or NaN; the scaler has seen them before."""
    huge = ("--trainer.callbacks+=tests.training.test_loss_scale_monitor.HugeLoss", "--trainer.callbacks.steps=[3, 5]")
    clipped(run, "fp16-cpu.yaml", "norm", "--trainer.limit_train_batches=6")
    run(
        *("fit", "--config=fp16-cpu.yaml", "--config=smoke.yaml", "--trainer.limit_train_batches=6", *huge),
        "--trainer.gradient_clip_val=0.3",
    )
    checkpoint = checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))
    assert checkpoint["optimizer_states"][0]["state"][0]["step"] == 4
    assert (checkpoint["MixedPrecision"]["scale"], checkpoint["MixedPrecision"]["skipped"]) == (65536 / 4, 2)
