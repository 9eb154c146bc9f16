from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mnist_amp.measuring.memory import MemoryMeter
from mnist_amp.measuring.profile_records import MemoryUse
from mnist_amp.measuring.step_profile import Amounts, StepProfile, measure_profile
from tests.measuring.fits import tiny

ONCE = Amounts(steps=3, warmup=1, gradient_steps=1)


@pytest.mark.parametrize(
    ("precision", "activations"),
    [
        # float32: hidden activations (32, 16), log-probabilities (32, 10), the loss's total weight ()
        ("32-true", 4 * (32 * 16 + 32 * 10 + 1)),
        # the images (32, 784), the hidden activations and fc2's weights (10, 16) in half precision; the loss in float32
        ("bf16-mixed", 2 * (32 * 784 + 32 * 16 + 10 * 16) + 4 * (32 * 10 + 1)),
    ],
)
def test_memory_equals_the_tensors_of_the_layers(data_dir: Path, precision: str, activations: int) -> None:
    profile, _ = measure_profile({}, tiny(data_dir, **{"trainer.precision": precision}), ONCE)
    weights = 784 * 16 + 16 + 16 * 10 + 10
    assert profile.memory == MemoryUse(
        weights=4 * weights,
        gradients=4 * weights,
        optimizer=4 * (2 * weights + 4),  # Adam's two means, and a step count for each of four parameters
        batch=4 * 32 * 784 + 32 * (8 + 8),  # images, labels, indices
        activations=activations,
        peak=None,
        data=None,
    )


class Twice(LightningModule):
    """Two optimizers by hand: two graphs, of which the first is freed before the second is made."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(4, 8, bias=False), nn.Linear(4, 8, bias=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        for layer, optimizer in zip((self.first, self.second), optimizers, strict=True):
            optimizer.zero_grad()
            self.manual_backward(layer(batch).square().mean())
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.first, self.second)], []


def test_activations_and_gradients_are_those_at_one_time() -> None:
    profile = StepProfile(ONCE)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=-1, callbacks=[profile], enable_progress_bar=False, **options)
    trainer.fit(Twice(), DataLoader(torch.ones(20, 4), batch_size=2))  # type: ignore[arg-type]
    assert profile.result is not None
    memory = profile.result.memory
    weight = 4 * 4 * 8
    assert (memory.weights, memory.gradients, memory.optimizer, memory.batch) == (2 * weight, weight, 0, 4 * 2 * 4)
    assert memory.activations == 4 * 2 * 8  # the output of one layer, for the square
    assert profile.result.flops == 2 * 2 * (2 * 2 * 4 * 8)  # two layers: the product, and the gradient of its weight


def test_saved_tensors_that_share_memory_count_once() -> None:
    trainer: Any = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.optimizers, module = [], LightningModule()
    meter = MemoryMeter(trainer, module)
    values = torch.ones(8, requires_grad=True)
    meter.begin_batch({"values": [values]})
    with meter.measuring():
        hidden = values * 2
        torch.autograd.backward((hidden[:4] * hidden[4:]).sum())  # both halves are saved
    assert meter.batch == meter.saved.most == 8 * 4
    assert meter.saved._now == 0
