"""Images unlike the training images are found, at the stated rate of false alarms."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mnist_amp.__main__ import main
from mnist_amp.data.datamodule import ClassificationDataModule
from mnist_amp.data.image_set import Facts, ImageSet, Source
from mnist_amp.errors import RequestError
from mnist_amp.inference import out_of_distribution
from mnist_amp.inference.drawing_reader import SIDE
from mnist_amp.inference.out_of_distribution import (
    CELLS,
    DIRECTIONS,
    Reference,
    edges,
    hidden_layer,
    multiplications,
    plane_distances,
)
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.networks import SimpleNN
from strokes import draw_digit
from tests.conftest import Run, started
from tests.inference.conftest import rows
from tests.inference.test_demo_server import BINARY, ask

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


class Extra:
    """Five images after those of the data set, each of them twice."""

    def indices(self, start: int, others: int) -> Tensor:
        return torch.arange(start, start + 5).repeat(2)


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
def test_one_of_a_hundred_held_out_images_is_over_1_and_three_as_photographs(channels: int, val_size: int) -> None:
    data = stripes(channels=channels, val_size=val_size)
    reference = reference_of(data)
    images, labels = data.source.load(train=True)
    if val_size:
        held = data.split()[1]
        assert int((reference.distances(images[held], labels[held]) > 1).sum()) == 4
        are_photographs = torch.arange(len(held)) < len(held)
        assert int((reference.distances(images[held], labels[held], are_photographs) > 1).sum()) == 12
    known = sum(map(len, reference.by_class))
    assert known == (800 if val_size else 1080)  # a tenth is left out if there are no validation images
    assert (reference.temperature is not None) == bool(val_size)


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


def test_photographs_are_farther_than_the_same_images_alone() -> None:
    reference, (images, labels) = reference_of(stripes()), stripes().source.load(train=True)
    alone = reference.distances(images[:9], labels[:9])
    mixed = reference.distances(images[:9], labels[:9], torch.arange(9) < 4)
    assert torch.equal(mixed[4:], alone[4:])
    torch.testing.assert_close(mixed[:4], alone[:4] * reference.threshold / reference.photograph_threshold)
    assert (mixed[:4] > alone[:4]).all()


def test_the_distance_to_a_plane() -> None:
    """It is less than that to the images that the plane goes through, and weights far from equal are penalised."""
    line = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    points = torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.0, 1.0], [1.5, 1.0]])
    found = plane_distances(points, line.expand(4, 2, 2))
    torch.testing.assert_close(found[:2], torch.tensor([1.0, 0.0]))
    assert 0 < found[2] < 0.5
    assert found[3].item() == pytest.approx(1.5 - 1.875 / 1.75)  # the line goes a little beyond its end
    same = torch.tensor([[3.0, 4.0]])
    assert plane_distances(same, same.expand(1, 15, 2)).tolist() == [0.0]


def test_what_lies_between_training_images_is_nearer_than_what_does_not() -> None:
    """The mean of two digits is as a digit; half a digit is not, though it shares as much with each of them."""
    images, labels = stripes().source.load(train=True)
    reference = Reference(edges, images[:800], labels[:800], 2)
    rows = images[800:][labels[800:] == 0]
    between = (rows[:1].float() + rows[1:2].float()).div(2).to(torch.uint8)
    half = torch.cat([rows[:1, :, :, :14], torch.zeros_like(rows[:1, :, :, 14:])], dim=3)
    guess = torch.tensor([0])
    assert reference.distances(between, guess).item() < reference.distances(half, guess).item() / 2


def test_a_class_without_training_images_is_infinitely_far() -> None:
    images, labels = stripes().source.load(train=True)
    reference = Reference(edges, images[:10], labels[:10], 3)
    assert reference.distances(images[:2], torch.tensor([2, 2])).tolist() == [math.inf, math.inf]
    assert reference.distances(images[:0], labels[:0]).shape == (0,)


def test_no_reference() -> None:
    data = stripes()
    data.image_shape = (3, 1000, 1000)  # more than is read for it
    for data.val_size in (400, 0):
        assert Reference.of(Direction(), data) is None


@pytest.mark.parametrize(
    ("val_size", "is_right", "is_known"), [(100, True, True), (99, True, False), (400, False, False)]
)
def test_distances_need_100_correctly_classified_images(val_size: int, is_right: bool, is_known: bool) -> None:
    network, data = Direction(), stripes(val_size=val_size)
    if not is_right:
        network.last.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    reference = Reference.of(network, data)
    assert reference is not None
    assert reference.distances(*data.source.load(train=True)).isfinite().tolist() == [is_known] * 1200
    assert (reference.temperature is not None) == (val_size >= 100)


@pytest.mark.parametrize("val_size", [400, 0])
def test_extra_images_are_not_compared_with(val_size: int) -> None:
    plain, data = stripes(val_size=val_size), stripes(val_size=val_size)
    data.extra = Extra()  # type: ignore[assignment]
    assert len(data.split()[0]) == len(plain.split()[0]) + 10
    found, wanted = reference_of(data), reference_of(plain)
    assert (found.threshold, found.temperature) == (wanted.threshold, wanted.temperature)
    assert list(map(len, found.by_class)) == list(map(len, wanted.by_class))


def test_validation_images_that_may_have_been_trained_on_give_a_threshold_alone() -> None:
    data, wanted = stripes(), reference_of(stripes())
    data.val_is_unseen = False
    found = reference_of(data)
    assert wanted.temperature is not None
    assert (found.threshold, found.temperature) == (wanted.threshold, None)


def test_training_images_that_can_not_be_read_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*, train: bool) -> ImageSet:
        raise RequestError("a.png is damaged.")

    data = stripes()
    monkeypatch.setattr(data.source, "load", refuse)
    capsys.readouterr()
    assert Reference.of(Direction(), data) is None
    assert capsys.readouterr().err == (
        "mnist-amp: warning: images are not compared with the training images, because these can't be read: a.png is "
        "damaged.\n"
    )


class Counted(Direction):
    """Its 4 multiplications an image are counted in the blocks that are computed."""

    blocks: list[int] = []  # noqa: RUF012  (it is shared with the copies)

    def forward(self, images: Tensor) -> Tensor:
        self.blocks.append(len(images))
        return super().forward(images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("most", [200, 199])
def test_few_images_of_a_large_network_are_computed(channels: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed in blocks of the batch size, after one image that is counted."""
    monkeypatch.setattr(out_of_distribution, "MULTIPLICATIONS", 4 * most)
    monkeypatch.setattr(Counted, "blocks", [])
    reference = Reference.of(Counted(), stripes(channels=channels))
    if most < 200:
        assert (reference, Counted.blocks) == (None, [1])
        return
    assert reference is not None
    known = sum(map(len, reference.by_class))
    if channels == 1:  # 800 images are compared by their edges
        assert (known, Counted.blocks) == (800, [1, 64, 64, 64, 8])
    else:
        assert (known, Counted.blocks) == (100, [1, 64, 36, 64, 36])


def test_multiplications() -> None:
    assert multiplications(PixelNetwork(SimpleNN(16)), SQUARE) == 784 * 16 + 16 * 10
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Flatten())
    assert multiplications(PixelNetwork(nn.Sequential(*layers)), SQUARE) == 28 * 28 * 4 * 9 + 14 * 14 * 6 * 2 * 9


@pytest.mark.cuda
@pytest.mark.parametrize("channels", [1, 3])
def test_cuda_finds_the_same(channels: int) -> None:
    data = stripes(channels=channels)
    images, labels = data.source.load(train=True)
    found, wanted = Reference.of(Direction().cuda(), data), reference_of(data)
    assert found is not None
    assert found.threshold == pytest.approx(wanted.threshold, rel=1e-3)
    assert found.temperature == pytest.approx(wanted.temperature, rel=1e-3)
    distances = found.distances(images[:99].cuda(), labels[:99].cuda())
    torch.testing.assert_close(distances, wanted.distances(images[:99], labels[:99]), rtol=1e-2, atol=1e-2)


def test_after_a_fit_with_extra_images(run: Run, fitted: Run, tmp_path: Path) -> None:
    """`predict` and `demo` compare with the data set's own images."""
    digit = draw_digit(7, 28, 2)
    Path("extra/7").mkdir(parents=True)
    for number in range(3):
        digit.save(f"extra/7/{number}.png")
    fitted("--config=configs/smoke.yaml")
    run("fit", "--config=configs/smoke.yaml", "--weights=best", "--data.extra_folder=extra")
    run("predict", "--images", "extra/7/0.png")
    assert 0 < float(rows()[0]["distance"]) < 9
    with started("demo", "--port=0", cwd=tmp_path) as process:
        assert process.stdout is not None
        page = next(line.split()[1] for line in process.stdout if line.startswith("page "))
        drawing = draw_digit(7, SIDE, 22).tobytes()
        answer = json.loads(
            ask(int(page.rstrip("/").rpartition(":")[2]), "POST", "/read?precision=float32", drawing, **BINARY)[2]
        )
        assert 0 < answer["distance"] < 9


def test_colour_images_in_a_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A training image that is damaged after the fit is a warning: the image is scored."""
    source = np.random.default_rng(0)
    for part, (label, colour) in (
        (part, pair) for part in ("train", "test") for pair in enumerate(((200, 0, 0), (0, 0, 200)))
    ):
        Path("photos", part, "rb"[label]).mkdir(parents=True)
        for number in range(140):
            pixels = np.array(colour) + source.integers(0, 50, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{part}/{'rb'[label]}/{number}.png")
    run("fit", "--data.folder=photos", "--data.batch_size=8", "--data.val_size=120", "--trainer.logger=false")
    predict: Any = ["predict", "--images", "photos/test/r/0.png"]
    run(*predict)
    assert rows()[0]["guess"] == "r"
    assert 0 < float(rows()[0]["distance"]) < 9
    damaged = Path("photos/train/b/3.png")
    damaged.write_bytes(damaged.read_bytes()[:-200])
    capsys.readouterr()
    main(predict)
    assert capsys.readouterr().err.startswith(
        "mnist-amp: warning: images are not compared with the training images, because these can't be read: "
        "photos/train/b/3.png "
    )
    assert (rows(1)[0]["guess"], rows(1)[0]["distance"]) == ("r", "")


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
    found = hidden_layer(pixels, 1)(SQUARE)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    values = linear[0](pixels.normalization(SQUARE).flatten(1)).relu()
    torch.testing.assert_close(found, nn.functional.normalize(values, dim=1))
    no_linear = PixelNetwork(nn.Sequential(nn.Conv2d(1, 3, 28), nn.Flatten()))
    assert hidden_layer(no_linear, 1)(SQUARE).shape == (1, 3)
