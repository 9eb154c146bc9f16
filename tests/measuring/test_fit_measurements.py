from pathlib import Path

import pytest

from mnist_amp.errors import RunError
from mnist_amp.measuring.fit_measurements import LossCurve, measure_speed, measure_step
from mnist_amp.measuring.precisions import PRECISIONS
from tests.measuring.fits import tiny


def test_a_loss_curve_has_at_most_100_points() -> None:
    curve = LossCurve()
    curve.losses = [1.0, 3.0, 5.0]
    assert curve.points() == [(1.0, 1.0), (2.0, 3.0), (3.0, 5.0)]
    curve.losses = [float(step) for step in range(1, 252)]
    assert len(curve.points()) == 84
    assert curve.points()[0] == (2.0, 2.0)
    assert curve.points()[-1] == (250.5, 250.5)


def test_a_fit_that_a_callback_ends_is_not_measured(data_dir: Path) -> None:
    stopping = {"monitor": "train_loss", "stopping_threshold": 100, "check_on_train_epoch_end": True}
    callback = {"class_path": "EarlyStopping", "init_args": stopping}
    overrides = tiny(data_dir, **{"trainer.callbacks": [callback], "trainer.limit_train_batches": 2})
    with pytest.raises(RunError, match=r"^the fit ended before it was measured; leave out the callback that ends it$"):
        measure_speed({}, overrides, 1000.0)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16-mixed", "16-mixed"])
def test_on_a_cuda_device(data_dir: Path, precision: str) -> None:
    own = tiny(data_dir, **{"trainer.accelerator": "cuda", "model.steps_per_execution": 50, **PRECISIONS[precision]})
    speed, _ = measure_speed({}, own, 0.05)
    assert speed.effective == {"tf32": "32-true with TF32"}.get(precision, precision)
    assert 0 < speed.waiting_seconds < speed.seconds
    profile, _ = measure_step({}, {**own, "model.steps_per_execution": 1}, 0.05)
    memory = profile.memory
    assert memory.data == 60_000 * 784
    assert memory.peak is not None
    assert memory.peak > memory.weights + memory.gradients + memory.optimizer + memory.batch + memory.data
    assert sum(profile.work.values()) == pytest.approx(1.0)
    assert 0 < profile.peak_share < 1
