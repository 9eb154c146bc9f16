"""A fit is tried before anything is written: the optimizer, its schedule, the loaders and the checkpoint's state."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_amp.data import ClassificationDataModule
from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from mnist_amp.training.preflight import Preflight
from tests.conftest import simple_nn
from tests.training.small_trainer import small_trainer

STATE = "damaged.ckpt is damaged: the state of its optimizer can't be loaded: "


def fit(data_dir: Path, module: LitClassifier, checkpoint: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    """Fit a module for one batch, with a Preflight."""
    preflight = Preflight(None if checkpoint is None else ("damaged.ckpt", checkpoint))
    trainer = small_trainer(callbacks=[preflight], limit_train_batches=1, **settings)
    trainer.fit(module, ClassificationDataModule(str(data_dir)))
    return trainer


def saved_adam(data_dir: Path, **replaced: Any) -> dict[str, Any]:
    """Return a checkpoint with the state of Adam after a step; `replaced` goes into the state of each parameter."""
    state = fit(data_dir, LitClassifier(simple_nn(4))).optimizers[0].state_dict()
    for values in state["state"].values():
        values.update(replaced)
    return {"optimizer_states": [state]}


def weights_after_a_fit(data_dir: Path, preflight: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    module = LitClassifier(simple_nn(4))
    if preflight:
        fit(data_dir, module, saved_adam(data_dir))
    else:
        small_trainer(limit_train_batches=1).fit(module, ClassificationDataModule(str(data_dir)))
    return [weight.detach() for weight in module.parameters()]


def test_a_preflight_does_not_change_the_fit(data_dir: Path) -> None:
    expected, found = (weights_after_a_fit(data_dir, preflight) for preflight in (False, True))
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"exp_avg": torch.zeros(3)}, "ValueError: exp_avg has the shape (3,), not (4, 784)."),
        ({"step": "two"}, ""),  # in the words of torch
    ],
)
def test_a_damaged_optimizer_state_is_refused(data_dir: Path, replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        fit(data_dir, LitClassifier(simple_nn(4)), saved_adam(data_dir, **replaced))
    assert str(error.value).startswith(f"{STATE}{message}")


def test_an_optimizer_that_needs_other_gradients_is_refused(data_dir: Path) -> None:
    with pytest.raises(RequestError, match=r"^the optimizer can't be used: RuntimeError: "):
        fit(data_dir, LitClassifier(optimizer={"class_path": "torch.optim.SparseAdam", "init_args": {}}))


def test_16_true_on_a_cpu_is_refused(data_dir: Path) -> None:
    with pytest.raises(RequestError, match=r"^trainer.precision is 16-true. On a CPU the loss"):
        fit(data_dir, LitClassifier(), precision="16-true")
