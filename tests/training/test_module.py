"""LitClassifier: its steps are those of plain PyTorch, its example runs, its checkpoints load without running code."""

import copy
import functools
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.loader import Batch
from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from tests.conftest import Malicious, Run, simple_nn
from tests.training.small_trainer import small_trainer

STEPS = 5


def plain_pytorch(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], precision: str, device: str, fused: bool = False
) -> list[float]:
    """Train with torch alone, as in the guide; returns the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=fused)
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


@pytest.mark.parametrize(
    ("device", "fused"), [("cpu", True), ("cpu", False), pytest.param("cuda", True, marks=pytest.mark.cuda)]
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_steps_are_the_same_as_in_plain_pytorch(data_dir: Path, precision: str, device: str, fused: bool) -> None:
    torch.manual_seed(0)
    optimizer = None if fused else {"class_path": "torch.optim.Adam", "init_args": {"fused": False}}
    module, data = LitClassifier(optimizer=optimizer), ClassificationDataModule(str(data_dir))
    model = copy.deepcopy(module.model).to(device)
    losses: list[float] = []
    module.on_train_batch_end = lambda outputs, *_: losses.append(outputs["loss"].item())  # type: ignore[method-assign]
    on_cpu = {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))}
    kind = on_cpu if (precision, device) == ("16-mixed", "cpu") else {"precision": precision}
    small_trainer(accelerator=device, devices=1, limit_train_batches=STEPS, **kind).fit(module, data)

    loader = data.train_dataloader()
    loader.position = lambda: (0, 0)
    batches = [(batch.images, batch.labels) for batch, _ in zip(loader, range(STEPS), strict=False)]
    # on a CPU to the bit; on CUDA a fused and a plain Adam round differently, and fp16 amplifies the difference
    rtol, atol = (0, 0) if device == "cpu" else (1e-3, 1e-4)
    fused = fused and device == "cpu"
    assert plain_pytorch(model, batches, precision, device, fused) == pytest.approx(losses, rel=rtol)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(module.model.state_dict()[name], weight.cpu(), rtol=10 * rtol, atol=atol)


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^SimpleNN can't be made: hidden_dim is 0; it must be at least 1.$"):
        LitClassifier(simple_nn(0))


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
def test_logits_have_the_dtype_of_the_weights(precision: Any) -> None:
    module = LitClassifier()
    module = module.to(torch.bfloat16) if precision == "bf16-true" else module
    assert module(torch.zeros(2, 1, 28, 28)).dtype == module.dtype


def test_loads_from_a_checkpoint_and_never_code(run: Run, tmp_path: Path) -> None:
    run("fit", "--config=configs/smoke.yaml", "--network.hidden_dim=16")
    path = Path("lightning_logs/version_0/checkpoints/best.ckpt")
    module = LitClassifier.load_from_checkpoint(path)
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert module.hparams["network"] == simple_nn(16)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    torch.save({"state_dict": Malicious()}, "evil.ckpt")
    with pytest.raises(RequestError, match=r"evil.ckpt holds objects other than tensors and plain values"):
        LitClassifier.load_from_checkpoint("evil.ckpt")
    assert not Path("ran").exists()


def test_the_example_runs(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(data_dir)
    monkeypatch.setattr("lightning.pytorch.Trainer", functools.partial(Trainer, accelerator="cpu", fast_dev_run=1))
    example = str(inspect.getdoc(LitClassifier)).partition("\n\n")[2].partition("\n\nArgs:")[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(example), names)
    assert names["trainer"].global_step == 1


class OnlyImages(nn.Module):
    """Fails without images, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.view(images.shape[0], -1))
        return logits


def test_a_batch_without_images_is_not_given_to_the_network() -> None:
    """A process of several may have no images of the last batch."""
    module = LitClassifier()
    module.model = OnlyImages()
    none = Batch(torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="cannot reshape"):
        module(none.images)
    module.test_step(none, 0)
    module.test_step(Batch(torch.zeros(1, 1, 28, 28), torch.tensor([3]), torch.tensor([0])), 1)
    scored = module.scores.scored()
    assert (scored.indices.tolist(), scored.labels.tolist(), scored.logits.shape) == ([0], [3], (1, 10))
