"""Triangles, squares and hexagons in colour, drawn at random. The same index is always the same image."""

from random import Random

from PIL import Image, ImageDraw
from torch.utils.data import Dataset


class Shapes(Dataset[tuple[Image.Image, int]]):
    classes = ("triangle", "square", "hexagon")

    def __init__(self, train: bool = True, size: int = 1000) -> None:
        self.train, self.size = train, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        random, label = Random(f"{self.train} {index}"), index % 3
        image = Image.new("RGB", (32, 32), f"hsl({random.randrange(360)}, 50%, 25%)")
        circle = random.randint(11, 20), random.randint(11, 20), random.randint(7, 10)
        colour, angle = f"hsl({random.randrange(360)}, 100%, 60%)", random.randrange(360)
        ImageDraw.Draw(image).regular_polygon(circle, (3, 4, 6)[label], angle, colour)
        return image, label
