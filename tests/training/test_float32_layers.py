"""Layers that run in float32 in mixed precision."""

import copy
import doctest
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mnist_amp.errors import RequestError
from mnist_amp.training import float32_layers
from mnist_amp.training.float32_layers import Float32Layers, float32, run_in_float32, without_autocast
from mnist_amp.training.gradient_scaler import ScalerSettings, install, scaler_of
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor
from tests.conftest import Refused, Run
from tests.runs.test_exact import last
from tests.training.small_trainer import small_trainer

PLUGIN = "mnist_amp.training.float32_layers.Float32Layers"
OPTIONS = ("--trainer.precision=null", f"--trainer.plugins={PLUGIN}")
FC2 = (*OPTIONS, "--trainer.plugins.layers=[model.fc2]", "--config=smoke.yaml")


class Seen(nn.Module):
    """Keeps the type of its input and output, and whether autocast was on."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.seen: tuple[Any, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        self.seen = (x.dtype, output.dtype, torch.is_autocast_enabled("cpu"))
        return output


class Large(LightningModule):
    """The output of `large` is 16 * 300 * 300 = 1,440,000, which fp16 can't hold; that of `small` is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.large, self.small = nn.Linear(4, 16), Seen(nn.Linear(16, 1)), nn.Linear(1, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        nn.init.constant_(self.first.bias, 300.0)
        nn.init.constant_(self.large.layer.weight, 300.0)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        large = self.large(self.first(batch)).float() / 2**20
        loss: Tensor = (self.small(large) + large).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(8, 4), batch_size=4)  # type: ignore[arg-type]


def train(plugin: MixedPrecision, **settings: Any) -> tuple[Large, Trainer]:
    module = Large()
    trainer = small_trainer(plugins=plugin, **settings)
    install(trainer, ScalerSettings(init_scale=1.0))
    trainer.fit(module)
    return module, trainer


def skipped(trainer: Trainer) -> int:
    scaler = scaler_of(trainer)
    assert scaler is not None
    return scaler.skipped()


def test_a_layer_that_overflows_in_fp16_trains_in_float32() -> None:
    module, trainer = train(MixedPrecision("16-mixed", "cpu"))
    assert skipped(trainer) == 2
    assert module.large.seen == (torch.float16, torch.float16, True)
    assert torch.equal(module.large.layer.weight, Large().large.layer.weight)
    module, trainer = train(Float32Layers(["large"], device="cpu"))
    assert skipped(trainer) == 0
    assert module.large.seen == (torch.float32, torch.float32, False)
    assert all(bool(parameter.isfinite().all()) for parameter in module.parameters())
    for name, parameter in module.named_parameters():  # the gradients pass through the layer
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all() & parameter.grad.ne(0).all()), name


def test_the_gradients_are_those_of_float32() -> None:
    """Only of the layer; the rest runs in bfloat16, in which these numbers are exact."""
    network, inputs = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), torch.tensor([[1.0, 2.0]])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1 + 2**-10)  # bfloat16 rounds it to 1
    plain = torch.autograd.grad(network(inputs).sum(), list(network.parameters()))
    run_in_float32(network, ["0", "1"])
    with torch.autocast("cpu", torch.bfloat16):
        output = network(inputs)
    assert output.dtype == torch.float32
    for wanted, found in zip(plain, torch.autograd.grad(output.sum(), list(network.parameters())), strict=True):
        assert torch.equal(found, wanted)


def test_the_rest_stays_in_half_precision_and_autocast_is_on_again() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    handles = run_in_float32(network, ["1"])
    outputs: list[torch.dtype] = []
    for layer in network:
        layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.ones(1, 2))
        assert torch.is_autocast_enabled("cpu")
    assert outputs == [torch.bfloat16, torch.float32, torch.bfloat16]
    for handle in handles:
        handle.remove()
    outputs.clear()
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.ones(1, 2))
    assert outputs == [torch.bfloat16] * 3


def test_after_an_error_in_the_layer_autocast_is_on_again() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    run_in_float32(network, ["0"])
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            network(torch.ones(1, 3))
        assert torch.is_autocast_enabled("cpu")
        assert network(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_runs_with_its_own_weights(copied: Any) -> None:
    network = nn.Sequential(nn.Linear(2, 1))
    run_in_float32(network, ["0"])
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    other = copied(network)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = other(torch.ones(1, 2))
    assert (output.dtype, output.item()) == (torch.float32, 3.0)


def test_a_plugin_that_is_used_again_hooks_once() -> None:
    plugin, module = Float32Layers(["large"], device="cpu"), Large()
    for _ in range(2):
        small_trainer(plugins=plugin).fit(module)
    assert len(module.large._forward_hooks) == 1


def test_a_function_in_float32() -> None:
    @float32
    def squares(values: dict[str, Any], *, factor: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        result: Tensor = (values["x"][0] @ values["x"][0]) * factor
        return result

    half = torch.full((1, 1), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", torch.float16):
        result = squares({"x": [half], "name": "any"}, factor=half)
    assert (result.dtype, result.item()) == (torch.float32, 300.0**3)


def test_without_autocast_as_a_context() -> None:
    with torch.autocast("cpu", torch.bfloat16), without_autocast():
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("layer", "did you mean large.layer?"),
        ("model.small", "did you mean small?"),
        ("lrage", "did you mean large?"),
        ("", "it has first, large, large.layer, small."),
        ("encoder.5", "it has first, large, large.layer, small."),
    ],
)
def test_unknown_layers_are_refused(name: str, hint: str) -> None:
    with pytest.raises(RequestError) as error:
        run_in_float32(Large(), ["first", name])
    assert str(error.value) == f"Large has no layer {name}, which was to run in float32; {hint}"
    module = Large()
    with pytest.raises(RequestError):
        run_in_float32(module, ["first", name])
    assert not module.first._forward_hooks


def test_the_command_trains_resumes_and_tests_with_it(run: Run, refused: Refused) -> None:
    run("fit", *FC2)
    assert last(0)["MixedPrecision"]["_growth_tracker"] == 8
    assert "Float32Layers" not in last(0)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert last(1)["MixedPrecision"]["_growth_tracker"] == 24
    run("test")
    assert refused("fit", *OPTIONS, "--trainer.plugins.layers=[model.fc3]", "--config=smoke.yaml") == (
        "mnist-amp: error: LitClassifier has no layer model.fc3, which was to run in float32; did you mean model.fc2 "
        "or model.fc1?\n"
    )


def test_the_command_takes_bfloat16_around_the_layers(run: Run) -> None:
    assert "precision  bf16-mixed with 1 layer in float32\n" in run(
        "fit", *FC2, "--trainer.plugins.precision=bf16-mixed"
    )
    assert "MixedPrecision" not in last(0)


def test_a_run_resumes_with_other_plugins_and_keeps_its_loss_scale(run: Run) -> None:
    run("fit", *FC2, "--scaler.init_scale=256")
    plain = "{class_path: MixedPrecision, init_args: {precision: 16-mixed, device: cpu}}"
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3", f"--trainer.plugins={plain}")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=4", *FC2[:-1])
    for version in range(3):
        state = last(version)["MixedPrecision"]
        assert (state["scale"], state["_growth_tracker"]) == (256.0, [8, 24, 32][version])


def test_the_loss_scale_is_monitored(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, float]] = []
    monkeypatch.setattr(Large, "log_dict", lambda self, metrics: logged.append(metrics))
    train(Float32Layers(["large"], device="cpu"), callbacks=[LossScaleMonitor()], log_every_n_steps=1)
    assert [(row["loss_scale"], row["skipped_steps"]) for row in logged] == [(1.0, 0.0), (1.0, 0.0)]


def test_examples() -> None:
    assert doctest.testmod(float32_layers, extraglobs={"torch": torch}).failed == 0
