"""Images unlike the training images are found, at the stated rate of false alarms."""

import math

import pytest
import torch
from torch import Tensor, nn

from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.image_set import Facts, ImageSet, Source
from mnist_amp.inference.out_of_distribution import CELLS, DIRECTIONS, Reference, edges, hidden_layer
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.networks import SimpleNN

SQUARE = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
SQUARE[..., 8:20, 8:20] = 200


class Stripes(Source):
    """Images of two classes: horizontal stripes and vertical stripes, of seeded levels, with noise."""

    def __init__(self, count: int, channels: int) -> None:
        self.count, self.channels = count, channels

    def prepare(self) -> None:
        return None

    def facts(self) -> Facts:
        return Facts(("rows", "columns"), (self.channels, 28, 28), self.count, 0)

    def load(self, *, train: bool) -> ImageSet:
        source = torch.Generator().manual_seed(3)
        labels = torch.arange(self.count) % 2
        levels = (
            torch.randint(100, 200, (self.count, 1, 7, 1), generator=source)
            .repeat_interleave(4, dim=2)
            .expand(-1, -1, -1, 28)
        )
        noise = torch.randint(0, 20, (self.count, self.channels, 28, 28), generator=source)
        stripes = torch.where(labels[:, None, None, None] == 0, levels, levels.transpose(2, 3))
        return ImageSet((stripes + noise).to(torch.uint8), labels)


class Direction(nn.Module):
    """Compares the changes from row to row with those from column to column."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.last.weight)

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(dim=1)
        changes = [grey.diff(dim=axis).abs().mean(dim=(1, 2)) for axis in (1, 2)]
        logits: Tensor = self.last(20 * torch.stack(changes, dim=1))
        return logits


def stripes(count: int = 1200, channels: int = 1, val_size: int = 400) -> ClassificationDataModule:
    data = ClassificationDataModule(val_size=0)
    data.source, data.image_shape, data.num_classes = Stripes(count, channels), (channels, 28, 28), 2
    data.train_size, data.val_size = count, val_size
    return data


def reference_of(data: ClassificationDataModule) -> Reference:
    reference = Reference.of(Direction(), data)
    assert reference is not None
    return reference


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("val_size", [400, 0])
def test_one_of_a_hundred_held_out_images_is_over_1(channels: int, val_size: int) -> None:
    data = stripes(channels=channels, val_size=val_size)
    reference = reference_of(data)
    images, labels = data.source.load(train=True)
    if val_size:
        held = data.split()[1]
        assert int((reference.distances(images[held], labels[held]) > 1).sum()) == 4
    known = sum(map(len, reference.by_class))
    assert known == (800 if val_size else 1080)  # a tenth is left out if there are no validation images
    assert reference.temperature != 1 if val_size else reference.temperature == 1


def test_other_images_are_over_1() -> None:
    reference = reference_of(stripes())
    for other in (SQUARE, torch.zeros_like(SQUARE), torch.eye(28).mul(255).to(torch.uint8)[None, None]):
        for guess in (0, 1):
            assert reference.distances(other, torch.tensor([guess])).item() > 1
    images, labels = stripes().source.load(train=True)
    known = reference.distances(images[:100], labels[:100])
    assert (known < 1.5).all()
    assert (reference.distances(images[:100], 1 - labels[:100]) > known).all()  # of the wrong class


def test_the_distances_are_the_same_each_time_and_in_any_order() -> None:
    images, labels = stripes().source.load(train=True)
    first, second = (reference_of(stripes()).distances(images[:9], labels[:9]) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(reference_of(stripes()).distances(images[:9].flip(0), labels[:9].flip(0)), first.flip(0))


def test_a_class_without_training_images_is_infinitely_far() -> None:
    images, labels = stripes().source.load(train=True)
    reference = Reference(edges, images[:10], labels[:10], 3)
    assert reference.distances(images[:2], torch.tensor([2, 2])).tolist() == [math.inf, math.inf]
    assert reference.distances(images[:0], labels[:0]).shape == (0,)


def test_no_reference() -> None:
    data = stripes()
    data.image_shape = (3, 1000, 1000)  # more than is read for it
    assert Reference.of(Direction(), data) is None
    always_wrong = Direction()
    always_wrong.last.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert Reference.of(always_wrong, stripes()) is None


def test_edges_tell_directions_and_places_and_not_contrast() -> None:
    found = edges(SQUARE).reshape(DIRECTIONS, CELLS, CELLS)
    assert found.square().sum().item() == pytest.approx(1)
    faint = torch.where(SQUARE > 0, 50, 0).to(torch.uint8)
    torch.testing.assert_close(edges(faint), edges(SQUARE))
    assert torch.equal(edges(torch.zeros_like(SQUARE)), torch.zeros(1, DIRECTIONS * CELLS * CELLS))
    # the ink grows brighter to the right (direction 0) at the left side of the square alone, and downwards at its top
    by_column, by_row = found[0].sum(dim=0), found[DIRECTIONS // 4].sum(dim=1)
    assert by_column.argmax().item() < CELLS // 2
    assert by_row.argmax().item() < CELLS // 2
    assert found[DIRECTIONS // 2].sum(dim=0).argmax().item() >= CELLS // 2


@pytest.mark.parametrize(("channels", "side"), [(1, 64), (3, 32), (1, 8)])
def test_edges_of_images_of_any_size(channels: int, side: int) -> None:
    images = torch.randint(
        0, 256, (3, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert edges(images).shape == (3, DIRECTIONS * CELLS * CELLS)
    torch.testing.assert_close(edges(images).norm(dim=1), torch.ones(3))


def test_the_hidden_layer_is_the_input_of_the_last_linear_layer() -> None:
    torch.manual_seed(0)
    network = SimpleNN(16)
    pixels = PixelNetwork(network)
    found = hidden_layer(pixels)(SQUARE)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    values = linear[0](pixels.normalization(SQUARE).flatten(1)).relu()
    torch.testing.assert_close(found, nn.functional.normalize(values, dim=1))
    no_linear = PixelNetwork(nn.Sequential(nn.Flatten(), nn.Dropout()))
    assert hidden_layer(no_linear)(SQUARE).shape == (1, 784)
