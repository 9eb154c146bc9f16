from pathlib import Path

import pytest

from mnist_amp.measuring.compare_records import MemoryUse
from mnist_amp.measuring.measured_fit import MeasuredFit
from mnist_amp.measuring.step_timer import StepTimer
from tests.measuring.fits import ENDLESS, tiny


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
    timer, weights = StepTimer(seconds=0.0), 784 * 16 + 16 + 16 * 10 + 10
    MeasuredFit({}, tiny(data_dir, **{"trainer.precision": precision}), [timer], **ENDLESS)
    assert timer.timing is not None
    assert timer.timing.memory == MemoryUse(
        weights=4 * weights,
        gradients=4 * weights,
        optimizer=4 * (2 * weights + 4),  # Adam's two means, and a step count for each of four parameters
        batch=4 * 32 * 784,
        activations=activations,
        peak=None,
        data=None,
    )
