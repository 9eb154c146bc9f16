"""The ten digits as strokes of a pen, to test the page of the demo, and the accuracy by the width of the pen."""

import math
from itertools import pairwise

from PIL import Image, ImageDraw

Point = tuple[float, float]
Stroke = list[Point]

FINER = 4  # an image is drawn larger by this factor and then reduced, so that its edges are smooth


def arc(centre: Point, radii: Point, start: float, end: float) -> Stroke:
    """Return points along an ellipse, from one angle to another: degrees, 0 to the right, 90 down."""
    steps = max(round(abs(end - start) / 10), 1)
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle)) for angle in angles]


UPPER = arc((0.5, 0.33), (0.17, 0.16), 90, -30)  # right half of the upper loop of an 8, its last part
# in a unit square, x to the right and y down, in the order and direction of handwriting
STROKES: dict[int, list[Stroke]] = {
    0: [arc((0.5, 0.5), (0.23, 0.33), -80, -440)],
    1: [[(0.56, 0.16), (0.44, 0.84)]],
    2: [[*arc((0.5, 0.36), (0.21, 0.2), -165, 25), (0.52, 0.63), (0.27, 0.83), (0.76, 0.82)]],
    3: [[*arc((0.46, 0.33), (0.21, 0.17), -150, 80), *arc((0.46, 0.66), (0.24, 0.18), -80, 150)]],
    4: [[(0.37, 0.17), (0.27, 0.53), (0.72, 0.51)], [(0.66, 0.18), (0.58, 0.84)]],
    5: [[(0.37, 0.18), (0.33, 0.46), *arc((0.46, 0.64), (0.23, 0.2), -120, 140)], [(0.37, 0.18), (0.72, 0.17)]],
    6: [[*arc((0.66, 0.66), (0.35, 0.5), -105, -175), *arc((0.49, 0.66), (0.18, 0.17), 180, -180)]],
    7: [[(0.26, 0.2), (0.74, 0.2)], [(0.74, 0.2), (0.56, 0.5), (0.44, 0.84)]],
    8: [[*arc((0.5, 0.33), (0.17, 0.16), -30, -270), *arc((0.5, 0.67), (0.2, 0.18), -90, 270), *UPPER]],
    9: [[*arc((0.49, 0.34), (0.18, 0.17), 0, -360), (0.66, 0.5), (0.58, 0.84)]],
}


def draw_digit(digit: int, size: int, width: float) -> Image.Image:
    """Draw a digit, dark on light, with a round pen.

    Args:
        digit: 0 to 9.
        size: pixels of a side of the image.
        width: of the pen, in pixels.
    """
    image = Image.new("L", (size * FINER, size * FINER), 255)
    draw, radius = ImageDraw.Draw(image), width * FINER / 2
    for stroke in STROKES[digit]:
        points = [(x * size * FINER, y * size * FINER) for x, y in stroke]
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
        for start, end in pairwise(points):
            draw.line((start, end), fill=0, width=round(2 * radius))
    return image.resize((size, size), Image.Resampling.BOX)
