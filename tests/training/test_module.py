import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from mnist_amp.data import MNISTDataModule
from mnist_amp.errors import RequestError
from mnist_amp.module import LitSimpleNN
from tests.conftest import Malicious, Run

STEPS = 5
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def trainer(**settings: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, **quiet, **settings})


def configured(module: LitSimpleNN) -> Any:
    return module.configure_optimizers()


def plain_pytorch(model: nn.Module, batches: list[tuple[Tensor, Tensor]], precision: str, device: str) -> list[float]:
    """Train as the guide does, with torch alone; returns the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    scaler = torch.amp.GradScaler(device, enabled=precision == "16-mixed")
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype, enabled=precision != "32-true"):
            loss = F.cross_entropy(model(images), labels)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_steps_are_those_of_plain_pytorch(data_dir: Path, precision: str, device: str) -> None:
    torch.manual_seed(0)
    module, data = LitSimpleNN(), MNISTDataModule(str(data_dir))
    model = copy.deepcopy(module.model).to(device)
    losses: list[float] = []
    module.on_train_batch_end = lambda outputs, *_: losses.append(outputs["loss"].item())  # type: ignore[method-assign]
    on_cpu = {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))}
    kind = on_cpu if (precision, device) == ("16-mixed", "cpu") else {"precision": precision}
    trainer(accelerator=device, devices=1, limit_train_batches=STEPS, **kind).fit(module, data)

    loader = data.train_dataloader()
    loader.position = lambda: (0, 0)
    batches = [(batch.images, batch.labels) for batch, _ in zip(loader, range(STEPS), strict=False)]
    # to float32 rounding; on CUDA a fused and a plain Adam round apart, which fp16 makes more of
    rtol, atol = (1e-6, 1e-6) if device == "cpu" else (1e-3, 1e-4)
    assert plain_pytorch(model, batches, precision, device) == pytest.approx(losses, rel=rtol)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(module.model.state_dict()[name], weight.cpu(), rtol=10 * rtol, atol=atol)


def test_default_optimizer_is_the_guides() -> None:
    module = LitSimpleNN()
    module.trainer = trainer()
    optimizer = configured(module)["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 0.001


@pytest.mark.parametrize(
    ("clip", "given", "fused"),
    [
        (None, {}, True),
        (0.0, {}, True),
        (1.0, {}, None),
        (None, {"fused": False}, False),
        (1.0, {"fused": False}, False),
        (None, {"foreach": True}, None),
    ],
)
def test_optimizer_is_fused_unless_gradients_are_clipped(clip: float | None, given: Any, fused: bool | None) -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, **given}})
    module.trainer = trainer(gradient_clip_val=clip, precision="bf16-mixed")
    assert configured(module)["optimizer"].defaults["fused"] is fused


def test_an_optimizer_that_can_not_be_fused_is_left_alone() -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.RMSprop"})
    module.trainer = trainer()
    assert type(configured(module)["optimizer"]) is torch.optim.RMSprop


def test_refuses_a_fused_optimizer_with_clipping() -> None:
    module = LitSimpleNN(optimizer={"class_path": "torch.optim.Adam", "init_args": {"fused": True}})
    module.trainer = trainer(gradient_clip_val=1.0, precision="bf16-mixed")
    with pytest.raises(RequestError) as error:
        configured(module)
    assert str(error.value) == (
        "optimizer.fused and trainer.gradient_clip_val can't be combined in mixed precision, as a fused optimizer "
        "unscales the gradients after they would be clipped. Leave one of them out."
    )


def test_in_full_precision_a_fused_optimizer_goes_with_clipping() -> None:
    module = LitSimpleNN()
    module.trainer = trainer(gradient_clip_val=1.0)
    assert configured(module)["optimizer"].defaults["fused"] is True


def checkpoint(fused: Any = None, lr: float = 0.001, **schedule: Any) -> dict[str, Any]:
    """Return what matters of a checkpoint of Adam at a base rate of 0.001, which a schedule has brought to `lr`."""
    return {
        "hyper_parameters": {"optimizer": {"init_args": {"lr": 0.001, "eps": 1e-8}}, "lr_scheduler": None},
        "optimizer_states": [{"param_groups": [{"lr": lr, "initial_lr": 0.001, "eps": 1e-8, "fused": fused}]}],
        "lr_schedulers": [schedule] if schedule else [],
    }


def adam(**init_args: Any) -> dict[str, Any]:
    return {"class_path": "torch.optim.Adam", "init_args": init_args}


@pytest.mark.parametrize(("clip", "fused"), [(None, True), (1.0, None)])
def test_a_checkpoints_fused_does_not_outlive_a_change_of_clipping(clip: float | None, fused: bool | None) -> None:
    module = LitSimpleNN()
    module.trainer = trainer(gradient_clip_val=clip, precision="bf16-mixed")
    loaded = checkpoint(fused="what it was")
    module.on_load_checkpoint(loaded)
    assert loaded == checkpoint(fused=fused)


def test_optimizer_settings_go_before_a_checkpoints() -> None:
    module = LitSimpleNN(optimizer=adam(lr=0.5, eps=1e-4))
    module.trainer = trainer()
    loaded = checkpoint(lr=0.0001, base_lrs=[0.001], _last_lr=[0.0001], last_epoch=3)
    module.on_load_checkpoint(loaded)
    assert loaded["optimizer_states"][0]["param_groups"] == [
        {"lr": pytest.approx(0.05), "initial_lr": 0.5, "eps": 1e-4, "fused": True}
    ]
    assert loaded["lr_schedulers"] == [{"base_lrs": [0.5], "_last_lr": [pytest.approx(0.05)], "last_epoch": 3}]


def test_schedule_settings_go_before_a_checkpoints() -> None:
    module = LitSimpleNN(lr_scheduler={"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 3}})
    module.trainer = trainer()
    loaded = checkpoint(step_size=2, last_epoch=3)
    loaded["hyper_parameters"]["lr_scheduler"] = {"class_path": "StepLR", "init_args": {"step_size": 2}}
    module.on_load_checkpoint(loaded)
    assert loaded["lr_schedulers"] == [{"step_size": 3, "last_epoch": 3}]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_schedule(interval: Any) -> None:
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
    module = LitSimpleNN(lr_scheduler=schedule, lr_scheduler_interval=interval)
    module.trainer = trainer()
    made = configured(module)["lr_scheduler"]
    assert type(made["scheduler"]) is torch.optim.lr_scheduler.StepLR
    assert (made["interval"], made["monitor"]) == (interval, None)


def test_schedule_on_a_plateau_watches_its_metric() -> None:
    schedule = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss"}}
    module = LitSimpleNN(lr_scheduler=schedule)
    module.trainer = trainer()
    made = configured(module)["lr_scheduler"]
    assert isinstance(made["scheduler"], ReduceLROnPlateau)
    assert made["monitor"] == "val_loss"


def test_refuses_a_width_of_none() -> None:
    with pytest.raises(RequestError, match=r"^model.hidden_dim is 0; it must be at least 1.$"):
        LitSimpleNN(hidden_dim=0)


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
def test_scores_in_true_precision(precision: Any) -> None:
    module = LitSimpleNN()
    module = module.to(torch.bfloat16) if precision == "bf16-true" else module
    assert module(torch.zeros(2, 1, 28, 28)).dtype == module.dtype


def test_loads_from_a_checkpoint_and_never_code(run: Run, tmp_path: Path) -> None:
    run("fit", "--config=configs/smoke.yaml", "--model.hidden_dim=16")
    path = Path("lightning_logs/version_0/checkpoints/best.ckpt")
    module = LitSimpleNN.load_from_checkpoint(path)
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert module.hparams["hidden_dim"] == 16
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    torch.save({"state_dict": Malicious()}, "evil.ckpt")
    with pytest.raises(RequestError, match=r"evil.ckpt holds objects other than tensors and plain values"):
        LitSimpleNN.load_from_checkpoint("evil.ckpt")
    assert not Path("ran").exists()
