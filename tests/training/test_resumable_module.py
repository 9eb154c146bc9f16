"""ResumableModule as a base class: the example in its docstring trains, resumes, and runs with steps_per_execution."""

import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError
from mnist_amp.training.resumable_module import ResumableModule
from tests.training.small_trainer import small_trainer


def example() -> type[ResumableModule]:
    """Return the class in the docstring of ResumableModule."""
    code = str(inspect.getdoc(ResumableModule)).partition("`training_step`:\n\n")[2].partition("\n\nIts")[0]
    names: dict[str, Any] = {"Any": Any, "Batch": Batch, "F": F, "Tensor": Tensor, "nn": nn}
    names |= {"ResumableModule": ResumableModule, "__name__": __name__}
    exec(textwrap.dedent(code), names)
    made: type[ResumableModule] = names["LitLinear"]
    return made


def test_the_example_is_the_same_with_several_steps_per_execution(data_dir: Path) -> None:
    trained = []
    for steps in (1, 4):
        torch.manual_seed(0)
        module = example()(steps_per_execution=steps)
        small_trainer(limit_train_batches=6).fit(module, ClassificationDataModule(str(data_dir)))
        assert module.train_means.rows().shape == (6, 3)
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_the_example_resumes_with_another_learning_rate(data_dir: Path, tmp_path: Path) -> None:
    data = ClassificationDataModule(str(data_dir))
    first = small_trainer(limit_train_batches=3)
    first.fit(example()(), data)
    first.save_checkpoint(tmp_path / "first.ckpt")
    module = example()(optimizer={"class_path": "torch.optim.Adam", "init_args": {"lr": 0.5}})
    second = small_trainer(limit_train_batches=3, max_epochs=2)
    second.fit(module, data, ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    assert second.global_step == 6
    assert second.optimizers[0].param_groups[0]["lr"] == 0.5


def test_less_than_one_step_per_execution_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^model.steps_per_execution is 0; it must be at least 1.$"):
        ResumableModule(steps_per_execution=0)
