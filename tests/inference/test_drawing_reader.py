"""Drawings read by a network, in several precisions."""

from typing import cast

import pytest
import torch
from PIL import ImageOps

from mnist_amp.data.normalization import TO_UNIT
from mnist_amp.images.mnist_form import mnist_form
from mnist_amp.inference.drawing_reader import SIDE, SIZE, DrawingReader, ReadDrawing
from mnist_amp.inference.out_of_distribution import Reference
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.networks.simple_nn import SimpleNN
from strokes import draw_digit

SEVEN = ImageOps.invert(draw_digit(7, SIDE, 22))


def network() -> SimpleNN:
    torch.manual_seed(0)
    return SimpleNN(16)


@pytest.fixture(scope="module")
def reader() -> DrawingReader:
    return DrawingReader(network(), TO_UNIT, torch.device("cpu"))


def test_reads_the_digit_that_the_network_reads(reader: DrawingReader) -> None:
    read = reader(SEVEN.tobytes(), list(DTYPES))
    image = mnist_form(SEVEN)
    assert read.image == image.flatten().tolist()
    assert list(read.readings) == list(DTYPES)
    for name, reading in read.readings.items():
        with torch.inference_mode():
            wanted = PixelNetwork(network(), TO_UNIT, DTYPES[name])(torch.from_numpy(image)[None, None])[0].softmax(
                dim=0
            )
        assert reading.probabilities is not None
        assert reading.probabilities == wanted.tolist()
        assert abs(sum(reading.probabilities) - 1) < 1e-6
        assert reading.guess == wanted.argmax().item()
        assert 0 < reading.seconds < 1


class Compared:
    """A reference, to which each image of a 7 is near and all others are far."""

    temperature = 2.0

    def distances(self, images: torch.Tensor, guesses: torch.Tensor) -> torch.Tensor:
        assert images.shape == (1, 1, 28, 28)
        return torch.where(guesses == 7, 0.5, 1.5)


def test_a_drawing_is_compared_with_the_training_images(reader: DrawingReader) -> None:
    """The probabilities are those at the temperature of the reference."""
    compared = DrawingReader(network(), TO_UNIT, torch.device("cpu"), cast(Reference, Compared()))
    read, plain = compared(SEVEN.tobytes(), ["float32"]), reader(SEVEN.tobytes(), ["float32"])
    guess, probabilities = read.readings["float32"].guess, read.readings["float32"].probabilities
    assert guess == plain.readings["float32"].guess
    assert (plain.distance, read.distance) == (None, 0.5 if guess == 7 else 1.5)
    roots = torch.tensor(plain.readings["float32"].probabilities).sqrt()
    torch.testing.assert_close(torch.tensor(probabilities), roots / roots.sum())
    assert compared(SEVEN.tobytes(), []).distance is None


def test_an_overflow_is_no_guess() -> None:
    model = network()
    with torch.no_grad():
        model.fc2.weight.mul_(1e6)
    readings = DrawingReader(model, TO_UNIT, torch.device("cpu"))(SEVEN.tobytes(), ["float16", "bfloat16"]).readings
    assert (readings["float16"].guess, readings["float16"].probabilities) == (None, None)
    guess, probabilities = readings["bfloat16"].guess, readings["bfloat16"].probabilities
    assert guess is not None
    assert probabilities is not None
    assert probabilities[guess] == 1


def test_reads_in_the_requested_precisions(reader: DrawingReader) -> None:
    for precisions in ([], ["float16"], ["float32", "bfloat16"]):
        assert list(reader(SEVEN.tobytes(), precisions).readings) == precisions


def test_a_drawing_without_ink_has_no_reading(reader: DrawingReader) -> None:
    assert reader(bytes(SIZE), list(DTYPES)) == ReadDrawing(image=None, distance=None, readings={})


@pytest.mark.cuda
def test_cuda_reads_the_same() -> None:
    on_cpu, on_cuda = (
        DrawingReader(network(), TO_UNIT, torch.device(kind))(SEVEN.tobytes(), list(DTYPES)).readings
        for kind in ("cpu", "cuda")
    )
    for name, reading in on_cpu.items():
        assert on_cuda[name].guess == reading.guess
        assert on_cuda[name].probabilities == pytest.approx(reading.probabilities, abs=0.01)
        assert 0 < on_cuda[name].seconds < 1
