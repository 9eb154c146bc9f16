"""Reads drawings of digits or letters with a trained network, in several precisions side by side."""

import math
import statistics
import time
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from mnist_amp.data.normalization import Normalization
from mnist_amp.images.mnist_form import NoInkError, mnist_form
from mnist_amp.inference.out_of_distribution import Reference
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork

SIDE = 280  # pixels of a side of a drawing
SIZE = SIDE * SIDE  # bytes of a drawing: the level of ink in each pixel, row by row
REPEATS = 9  # inferences that a time is the median of


@dataclass(frozen=True)
class Reading:
    """The network's answer in one precision.

    Attributes:
        guess: index of the class with the highest probability; None if the logits overflowed, which float16 can do.
        probabilities: of the classes, 0 to 1, calibrated; None if the logits overflowed.
        seconds: time of an inference, from the image on the device to the logits: the median of `REPEATS`.
    """

    guess: int | None
    probabilities: list[float] | None
    seconds: float


@dataclass(frozen=True)
class ReadDrawing:
    """A drawing in MNIST's form, and what the network reads in it.

    Attributes:
        image: the 784 levels of the image that the network sees, row by row; None if the drawing has no ink.
        distance: from the training images; over 1 if it is unlike them. None if it is unknown.
        readings: by precision; empty if the drawing has no ink.
    """

    image: list[int] | None
    distance: float | None
    readings: dict[str, Reading]


class DrawingReader:
    """Reads drawings with a network, in each of `DTYPES`.

    Args:
        model: takes normalised images (N, 1, 28, 28).
        normalization: of the images.
        device: where the network is computed.
        reference: the training images to compare with; None if they are unknown.
    """

    def __init__(
        self, model: nn.Module, normalization: Normalization, device: torch.device, reference: Reference | None = None
    ) -> None:
        self.device, self.reference = device, reference
        self.temperature = (reference and reference.temperature) or 1.0
        self.networks = {name: PixelNetwork(model, normalization, dtype).to(device) for name, dtype in DTYPES.items()}
        self.read(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), list(DTYPES))  # the first inference takes longer

    def __call__(self, drawing: bytes, precisions: list[str]) -> ReadDrawing:
        """Bring a drawing of `SIZE` bytes into MNIST's form, and read it in these precisions."""
        try:
            image = mnist_form(Image.frombytes("L", (SIDE, SIDE), drawing))
        except NoInkError:
            return ReadDrawing(None, None, {})
        images = torch.from_numpy(image)[None, None]
        readings = self.read(images, precisions)
        return ReadDrawing(image.flatten().tolist(), self._distance(images, readings), readings)

    @torch.inference_mode()
    def read(self, images: Tensor, precisions: list[str]) -> dict[str, Reading]:
        """Read one image (1, 1, 28, 28) uint8 in these precisions."""
        images = images.to(self.device)
        return {name: self._reading(self.networks[name], images) for name in precisions}

    def _reading(self, network: PixelNetwork, images: Tensor) -> Reading:
        seconds = []
        for _ in range(REPEATS):
            start = self._now()
            logits = network(images)
            seconds.append(self._now() - start)
        probabilities = (logits[0] / self.temperature).softmax(dim=0)
        if not probabilities.isfinite().all():
            return Reading(None, None, statistics.median(seconds))
        return Reading(int(probabilities.argmax()), probabilities.tolist(), statistics.median(seconds))

    def _distance(self, images: Tensor, readings: dict[str, Reading]) -> float | None:
        guess = next((reading.guess for reading in readings.values() if reading.guess is not None), None)
        if self.reference is None or guess is None:
            return None
        distance = self.reference.distances(images, torch.tensor([guess])).item()
        return None if math.isnan(distance) else distance

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()
