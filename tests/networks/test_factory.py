"""Networks by name: what is taken, what is filled from the data, and each refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_amp.errors import RequestError
from mnist_amp.networks import CNN, SHIPPED, SimpleNN
from mnist_amp.networks.factory import NETWORK, make_network, resolve, with_path
from tests.conftest import THEIRS, filled

OWN = """
import enum, torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, width, num_classes: int, in_channels: int):
        super().__init__()
        if width == 13:
            raise ValueError("13 is unlucky.\\nIndeed.")
        self.norm = nn.BatchNorm2d(in_channels)
        self.out = nn.LazyLinear(num_classes)
        self.width = width

    def forward(self, images):
        return self.out(self.norm(images).flatten(1))

class Pair(MyNet):
    def forward(self, images):
        return (images, images)

class Wide(MyNet):
    def __init__(self, **others):
        super().__init__(width=3, **others)

def build(width: int = 2, **others) -> nn.Module:
    return MyNet(width, **others)

def silent(width=2):
    return MyNet(width, 10, 1)

class Activation(nn.Module):
    def __init__(self, between: nn.Module, num_classes: int = 10):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), between, nn.Linear(4, num_classes))
    def forward(self, images):
        return self.net(images)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a user's module on the path."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def made(name: str, shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10, **init_args: Any) -> nn.Module:
    return make_network({"class_path": name, "init_args": init_args}, num_classes, shape)


def refusal(name: str, **init_args: Any) -> str:
    with pytest.raises(RequestError) as error:
        made(name, **init_args)
    return str(error.value)


def test_the_default_is_the_guides() -> None:
    torch.manual_seed(1)
    expected = SimpleNN(128)
    torch.manual_seed(1)
    network = make_network(NETWORK, 10, (1, 28, 28))
    assert isinstance(network, SimpleNN)
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    torch.manual_seed(1)
    SimpleNN(128)
    expected_next = torch.rand(3)
    torch.manual_seed(1)
    make_network(NETWORK, 10, (1, 28, 28))
    assert torch.equal(torch.rand(3), expected_next)  # the check takes no random numbers


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 35, 42), 7)])
def test_shipped_networks_fit_the_data(name: str, shape: tuple[int, int, int], classes: int) -> None:
    network = made(name, shape, classes)
    assert network.training
    assert network(torch.zeros(5, *shape)).shape == (5, classes)


def test_facts_are_filled_also_by_kwargs() -> None:
    assert made("CNN", (3, 32, 32), 7, width=8).features[0].weight.shape == (8, 3, 3, 3)  # type: ignore[index, union-attr]
    for name in ("own_networks.Wide", "own_networks.build"):
        network = made(name, (3, 8, 8), 4)
        assert (network.norm.num_features, network.out.out_features) == (3, 4)  # type: ignore[union-attr]
    assert made("torchvision.models.resnet18", (3, 32, 32), 7).fc.out_features == 7  # type: ignore[union-attr]


def test_lazy_layers_get_their_shapes_and_batch_norm_stays_as_it_was() -> None:
    network = made("own_networks.MyNet", width=1)
    assert network.out.weight.shape == (10, 784)  # type: ignore[union-attr]
    assert network.norm.num_batches_tracked == 0  # type: ignore[union-attr]
    assert network.norm.training  # type: ignore[union-attr]


def test_a_module_among_the_arguments() -> None:
    network = made("own_networks.Activation", between={"class_path": "torch.nn.GELU"})
    assert isinstance(network.net[2], nn.GELU)  # type: ignore[index]


def test_a_fact_that_contradicts_the_data_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^num_classes of CNN is 4, but that of the data is 10. Leave it out.$"):
        make_network({"class_path": "CNN", "init_args": {"num_classes": 4}}, 10, (1, 28, 28))


def test_short_names() -> None:
    assert resolve("CNN") == "mnist_amp.networks.CNN"
    assert resolve("torchvision.models.resnet18") == "torchvision.models.resnet18"
    assert isinstance(make_network({"class_path": "CNN"}, 10, (1, 28, 28)), CNN)
    assert with_path({"class_path": "CNN"}) == {"class_path": "mnist_amp.networks.CNN", "init_args": {}}


@pytest.mark.parametrize(
    ("name", "init_args", "message"),
    [
        (
            "SimpelNN",
            {},
            "there is no network SimpelNN (did you mean SimpleNN?). Those of the package are SimpleNN, CNN, ViT, "
            "WideMLP. Name others with their module, such as torchvision.models.resnet18 or my_package.MyNet.",
        ),
        (
            "own_netwoks.MyNet",
            {},
            "there is no module own_netwoks. Install the package that it is in, or run the command in its folder.",
        ),
        (
            "own_networks.MyNat",
            {},
            "own_networks has no MyNat (did you mean MyNet?). It has MyNet, Pair, Wide, build, Activation.",
        ),
        (
            "own_networks.silent",
            {},
            "own_networks.silent has no return annotation of a network. Write its first line as "
            "`def silent(...) -> nn.Module:`.",
        ),
        ("os.system", {}, f"os.system is not a network: {THEIRS}"),
        ("own_networks.MyNet", {"width": 13}, "MyNet can't be made: 13 is unlucky."),
        ("own_networks.MyNet", {"width": 1, "hight": 2}, "MyNet takes no hight; it takes width."),
        ("CNN", {"widht": 1}, "CNN takes no widht (did you mean width?); it takes width, dropout."),
        (
            "own_networks.Pair",
            {"width": 1},
            "Pair returns a tuple in training, but it must return logits, a Tensor. Turn its auxiliary outputs off, "
            "as in --network.aux_logits false.",
        ),
        (
            "torch.nn.Flatten",
            {},
            "Flatten returns a Tensor of (2, 784) for 2 images of 1 x 28 x 28, but the data have 10 classes, so it "
            "must return (2, 10).",
        ),
        (
            "torchvision.models.resnet18",
            {},
            f"resnet18 does not take images of 1 x 28 x 28: {THEIRS} Use another network, or bring the images into "
            "another form with data.image_size and data.channels.",
        ),
        ("ViT", {"patch_size": 5}, "ViT can't be made: patch_size is 5, which does not divide images of 28 x 28."),
    ],
)
def test_refused(name: str, init_args: dict[str, Any], message: str) -> None:
    found = refusal(name, **init_args)
    assert found == filled(message, found)
