import torch
from torch import nn

from mnist_amp.networks.simple_nn import SimpleNN


class GuidesSimpleNN(nn.Module):
    """The network as it is written in the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 128)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 28 * 28)
        x = self.relu(self.fc1(x))
        logits: torch.Tensor = self.fc2(x)
        return logits


def test_is_the_guides_network() -> None:
    torch.manual_seed(0)
    guide, ours = GuidesSimpleNN(), SimpleNN()
    ours.load_state_dict(guide.state_dict())
    images = torch.randn(3, 1, 28, 28)
    assert torch.equal(ours(images), guide(images))


def test_widths() -> None:
    shapes = {name: tuple(value.shape) for name, value in SimpleNN(hidden_dim=7).state_dict().items()}
    assert shapes == {"fc1.weight": (7, 784), "fc1.bias": (7,), "fc2.weight": (10, 7), "fc2.bias": (10,)}
