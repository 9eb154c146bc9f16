"""Optimizers that compute the loss several times in a step, such as LBFGS: a step is a step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from mnist_amp.data import ClassificationDataModule
from mnist_amp.errors import RequestError
from mnist_amp.measuring.memory import MemoryMeter
from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.random_states import RandomStates
from mnist_amp.training.metrics import epoch_means
from mnist_amp.training.optimizers import check_closure
from tests.conftest import Refused, Run, simple_nn
from tests.training.small_trainer import small_trainer
from tests.training.test_resumable_module import example

LBFGS = "torch.optim.LBFGS"
SMOKE = ("--config=smoke.yaml", "--optimizer.lr=0.1", "--trainer.precision=32-true")


class Twice(torch.optim.SGD):
    """Computes the loss a second time after its step; its closure has a default."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if closure is not None:
            closure()
        return loss


class Never(torch.optim.SGD):
    """Does not compute the loss."""

    def step(self, closure: Any = None) -> Any:
        return super().step()


class Losses(Callback):
    """Notes each loss that is computed, by step, and the loss that callbacks get for each step."""

    once_per_execution = True

    def __init__(self) -> None:
        self.computed: dict[int, list[Tensor]] = {}
        self.reported: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        real = pl_module.training_step

        def training_step(batch: Any, batch_idx: int) -> Any:
            loss: Any = real(batch, batch_idx)
            self.computed.setdefault(trainer.global_step, []).append(loss.detach())
            return loss

        pl_module.training_step = training_step  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.reported.append(outputs["loss"])


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lbfgs": {"class_path": LBFGS, "init_args": {"lr": 0.1, "max_iter": 4, "history_size": 3}},
    "wolfe": {"class_path": LBFGS, "init_args": {"max_iter": 3, "line_search_fn": "strong_wolfe"}},
    "twice": {"class_path": f"{__name__}.Twice", "init_args": {"lr": 0.1}},
    "once": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_loss_of_a_step_counts(data_dir: Path, name: str, precision: Any) -> None:
    trained = []
    for steps in (1, 4):
        torch.manual_seed(0)
        module, losses = LitClassifier(simple_nn(16), optimizer=OPTIMIZERS[name], steps_per_execution=steps), Losses()
        trainer = small_trainer(limit_train_batches=6, precision=precision, callbacks=[losses])
        trainer.fit(module, ClassificationDataModule(str(data_dir), batch_size=50))
        assert trainer.global_step == 6
        assert list(losses.computed) == list(range(6))
        evaluations = [len(computed) for computed in losses.computed.values()]
        assert (max(evaluations) == 1) is (name == "once")
        first = [computed[0] for computed in losses.computed.values()]
        assert module.train_means.losses().tolist() == torch.stack(first).float().tolist()
        assert module.train_means.images == [50] * 6
        assert module.train_means.seen == 300
        assert module.loss == first[-1]
        assert losses.reported == (first if steps == 1 else [first[3], first[5]])
        assert trainer.callback_metrics["train_loss"] == pytest.approx(epoch_means(module.train_means.rows()).loss)
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_run_counts_steps_and_images(run: Run) -> None:
    run("fit", *SMOKE, "--optimizer=LBFGS", "--optimizer.max_iter=3", "--trainer.log_every_n_steps=1")
    checkpoint = checkpoint_files.read(Path("lightning_logs/version_0/checkpoints/last.ckpt"))
    assert checkpoint["global_step"] == 8
    assert checkpoint["train_means"].shape == (1, 8, 3)
    assert checkpoint["optimizer_states"][0]["state"][0]["func_evals"] == 24
    rows = [line.split(",") for line in Path("lightning_logs/version_0/metrics.csv").read_text().splitlines()]
    logged = [float(row[rows[0].index("train_loss_step")] or "nan") for row in rows[1:]]
    assert [loss for loss in logged if loss == loss] == pytest.approx(checkpoint["train_means"][0, :, 0].tolist())


def test_a_schedule_by_steps(run: Run) -> None:
    schedule = ("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5", "--model.lr_scheduler_interval=step")
    run("fit", *SMOKE, "--optimizer=LBFGS", "--optimizer.max_iter=2", *schedule)
    checkpoint = checkpoint_files.read(Path("lightning_logs/version_0/checkpoints/last.ckpt"))
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.1 * 0.5**8


def test_the_message_names_the_step_of_a_loss_that_is_not_finite(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    poison = ("--trainer.callbacks=tests.training.test_terminate_on_nan.Poison", "--trainer.callbacks.step=6")
    with pytest.raises(SystemExit):
        run("fit", *SMOKE, "--optimizer=LBFGS", "--optimizer.max_iter=3", *poison)
    assert "error: the loss of step 6 is not finite; " in capsys.readouterr().err


def test_dropout_resumes_to_the_bit(data_dir: Path, tmp_path: Path) -> None:
    """Each evaluation draws other random numbers, and LBFGS keeps lists of tensors as its state."""

    def fit(epochs: int, **start: Any) -> Trainer:
        torch.manual_seed(0)
        module = example()(optimizer=OPTIMIZERS["lbfgs"])
        trainer = small_trainer(limit_train_batches=4, max_epochs=epochs, callbacks=[RandomStates()])
        trainer.fit(module, ClassificationDataModule(str(data_dir)), **start)
        return trainer

    whole = fit(2)
    fit(1).save_checkpoint(tmp_path / "first.ckpt")
    resumed = fit(2, ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    assert resumed.global_step == 8
    found, wanted = resumed.lightning_module.state_dict(), whole.lightning_module.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def stand_in(**settings: Any) -> Any:
    values = {"scaler": None, "accumulate_grad_batches": 1, "world_size": 1, "callbacks": [], **settings}
    return SimpleNamespace(precision_plugin=SimpleNamespace(scaler=values.pop("scaler")), **values)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"scaler": 1}, "can't be done with a GradScaler. Use --trainer.precision bf16-mixed or 32-true."),
        (
            {"accumulate_grad_batches": 2},
            "can't be done with gradients accumulated over batches. Use a larger data.batch_size.",
        ),
        (
            {"callbacks": [GradientAccumulationScheduler({1: 2})]},
            "can't be done with gradients accumulated over batches. Use a larger data.batch_size.",
        ),
        ({"world_size": 2}, "can't be done by several processes together. Use one device."),
    ],
)
def test_what_several_evaluations_can_not_be_combined_with(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as error:
        check_closure(LBFGS, stand_in(**settings))
    assert str(error.value) == f"optimizer is LBFGS, which computes the loss several times in a step. This {problem}"
    check_closure(LBFGS, stand_in())
    check_closure("torch.optim.Adam", stand_in(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("--config=fp16-cpu.yaml", "--optimizer=LBFGS"),
            "optimizer is LBFGS, which computes the loss several times in a step. This can't be done with a "
            "GradScaler. Use --trainer.precision bf16-mixed or 32-true.",
        ),
        (
            (f"--optimizer={__name__}.Never", "--optimizer.lr=0.1"),
            "optimizer is Never, whose step does not call the closure that it is given. Without this call there is no "
            "loss and no gradient.",
        ),
    ],
)
def test_refused_before_anything_is_made(
    refused: Refused, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    assert refused("fit", "--config=smoke.yaml", *settings) == f"mnist-amp: error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_memory_counts_the_lists_of_an_optimizers_state(data_dir: Path) -> None:
    module = LitClassifier(simple_nn(16), optimizer=OPTIMIZERS["lbfgs"])
    trainer = small_trainer(limit_train_batches=3)
    data = ClassificationDataModule(str(data_dir))
    trainer.fit(module, data)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    # the direction, the previous gradient, and three pairs of vectors
    assert 8 * weights < MemoryMeter(trainer, module).use().optimizer < 9 * weights
