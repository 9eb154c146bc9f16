"""Parts of a drawn photograph: paper, lines, boxes, ink, a table, light, and a camera.

A sheet is the reflectance of a scene, (H, W, 3) float32 from 0 (black) to 1 (white). Ink, lines and light multiply it.
Lengths are in pixels, angles in degrees.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Draw = np.random.Generator
Plane = NDArray[np.float32]  # (H, W): an amount of ink, or a light, 0 to 1
Sheet = NDArray[np.float32]  # (H, W, 3)
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

INKS: tuple[Colour, ...] = ((0.12, 0.12, 0.14), (0.12, 0.17, 0.45), (0.65, 0.13, 0.15))  # black, dark blue, red
LINES: tuple[Colour, ...] = ((0.62, 0.78, 0.93), (0.7, 0.7, 0.72))  # pale blue, grey
MARGIN: Colour = (0.92, 0.5, 0.5)
PRINT: tuple[Colour, ...] = ((0.1, 0.1, 0.1), (0.45, 0.45, 0.47), (0.3, 0.42, 0.7), (0.85, 0.5, 0.35))  # of forms
TABLES: tuple[Colour, ...] = ((0.38, 0.25, 0.15), (0.22, 0.15, 0.1), (0.5, 0.36, 0.22), (0.2, 0.21, 0.23))


def blank(draw: Draw, shape: tuple[int, int], lightest: float = 0.97, darkest: float = 0.86) -> Sheet:
    """Return plain paper of an even shade, slightly tinted and with faint fibres."""
    tint = draw.uniform(0.97, 1, 3)
    fibres = smooth_noise(draw, shape, 1.5) * 0.006 + smooth_noise(draw, shape, 40) * 0.01
    return np.asarray(draw.uniform(darkest, lightest) * tint + fibres[..., None], dtype=np.float32)


def smooth_noise(draw: Draw, shape: tuple[int, int], sigma: float, across: float | None = None) -> Plane:
    """Return noise of mean 0 and standard deviation 1, blurred by `sigma`, or by `across` in the direction of y."""
    sigmas = across or sigma, sigma
    finer = [max(int(value / 3), 1) for value in sigmas]  # smooth noise is drawn smaller, which is faster
    small = [math.ceil(side / factor) + 4 for side, factor in zip(shape, finer, strict=True)]
    noise = draw.standard_normal(small, dtype=np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigmas[1] / finer[1], sigmaY=sigmas[0] / finer[0])
    blurred = cv2.resize(blurred, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((blurred - blurred.mean()) / blurred.std(), dtype=np.float32)


def painted(sheet: Sheet, ink: Plane, colour: Colour, opacity: float = 1.0) -> Sheet:
    """Put ink (H, W) of a colour on a sheet."""
    return np.asarray(sheet * (1 - opacity * ink[..., None] * (1 - np.array(colour))), dtype=np.float32)


def handwritten(draw: Draw, sheet: Sheet, ink: Plane) -> Sheet:
    """Put ink on a sheet with a black, blue or red pen."""
    return painted(sheet, ink, INKS[draw.integers(len(INKS))], draw.uniform(0.7, 0.95))


def pencilled(draw: Draw, sheet: Sheet, ink: Plane) -> Sheet:
    """Put ink on a sheet with a pencil: 15 to 35 % darker than the paper, with the grain of the paper."""
    grain = (0.85 + 0.3 * smooth_noise(draw, ink.shape, 1)).clip(0, 1)
    return painted(sheet, np.asarray(ink * grain, dtype=np.float32), (0, 0, 0), draw.uniform(0.15, 0.35))


def parallels(shape: tuple[int, int], pitch: float, width: float, angle: float, offset: float) -> Plane:
    """Return parallel lines from edge to edge; angle 0 is horizontal. The first is at the offset from a corner."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    position = y * math.cos(math.radians(angle)) - x * math.sin(math.radians(angle)) - offset
    distance = np.abs((position + pitch / 2) % pitch - pitch / 2)
    return np.asarray((width / 2 - distance + 0.5).clip(0, 1), dtype=np.float32)


def lined(draw: Draw, sheet: Sheet, *, squared: bool) -> Sheet:
    """Print the lines of ruled or squared paper, rotated in half of the images, in a part with a red margin."""
    shape, pitch, width = sheet.shape[:2], draw.uniform(18, 60), draw.uniform(1, 3)
    angle = draw.choice((0, 1)) * draw.uniform(-4, 4)
    colour, opacity = LINES[draw.integers(len(LINES))], draw.uniform(0.6, 1)
    for direction in (angle, angle + 90) if squared else (angle,):
        lines = parallels(shape, pitch, width, direction, draw.uniform(0, pitch))
        sheet = painted(sheet, lines, colour, opacity)
    if draw.random() < (0.2 if squared else 0.4):
        margin = parallels(shape, 10_000, draw.uniform(1, 3), angle + 90, -draw.uniform(30, 90))
        sheet = painted(sheet, margin, MARGIN, opacity)
    return sheet


def framed(sheet: Sheet, box: Box, width: float, colour: Colour, opacity: float) -> Sheet:
    """Print the four lines of a form's box; `box` is the middle of its lines and may be outside of the sheet."""
    y, x = np.mgrid[: sheet.shape[0], : sheet.shape[1]].astype(np.float32)
    left, top, right, bottom = box
    outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
    lines = (width / 2 - np.abs(outside) + 0.5).clip(0, 1)
    return painted(sheet, np.asarray(lines, dtype=np.float32), colour, opacity)


def table(draw: Draw, shape: tuple[int, int]) -> Sheet:
    """Return a darker table: wood with its grain in a direction, or an even surface with texture."""
    colour = np.array(TABLES[draw.integers(len(TABLES))]) * draw.uniform(0.8, 1.2)
    along, across = (draw.uniform(40, 120), draw.uniform(1, 3)) if draw.random() < 0.7 else (1.5, 1.5)
    if draw.random() < 0.5:
        along, across = across, along
    grain = smooth_noise(draw, shape, along, across) * draw.uniform(0.05, 0.15) + smooth_noise(draw, shape, 60) * 0.05
    return np.asarray(colour * (1 + grain[..., None]).clip(0.3, 2), dtype=np.float32)


def on_table(draw: Draw, sheet: Sheet) -> Sheet:
    """Lay a sheet on a table: it takes 50 to 85 % of the image, is rotated by up to 12 degrees, and casts a shadow."""
    height, width = sheet.shape[:2]
    scale, angle = math.sqrt(draw.uniform(0.5, 0.85)), draw.uniform(-12, 12)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    turn[:, 2] += draw.uniform(-1, 1, 2) * (1 - scale) * np.array([width, height]) * 0.4
    laid = cv2.warpAffine(sheet, turn, (width, height), flags=cv2.INTER_AREA)
    cover = cv2.warpAffine(np.ones((height, width), np.float32), turn, (width, height))[..., None]
    shadow = cv2.GaussianBlur(cover, (0, 0), draw.uniform(3, 10))[..., None] * draw.uniform(0.1, 0.4)
    return np.asarray(cover * laid + (1 - cover) * table(draw, (height, width)) * (1 - shadow), dtype=np.float32)


def tilted(draw: Draw, sheet: Sheet, shape: tuple[int, int]) -> Sheet:
    """Photograph the middle of a larger sheet askew: rotated by up to 12 degrees, in perspective, or both."""
    rows, columns = shape
    centre = np.array([sheet.shape[1], sheet.shape[0]]) / 2
    corners = np.array([[-columns, -rows], [columns, -rows], [columns, rows], [-columns, rows]]) / 2
    angle = math.radians(draw.uniform(-12, 12))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # a camera that is not above the sheet sees more of it on one side than on the other
    slant = 1 + corners / (columns, rows) @ draw.uniform(-0.3, 0.3, 2)
    source = np.asarray(centre + (corners * slant[:, None]) @ turn, dtype=np.float32)
    goal = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    seen = cv2.warpPerspective(sheet, cv2.getPerspectiveTransform(source, goal), (columns, rows), flags=cv2.INTER_AREA)
    return np.asarray(seen, dtype=np.float32)


def uneven_light(draw: Draw, shape: tuple[int, int]) -> Plane:
    """Return a light that falls off to one side and to the corners, about 1 in the middle."""
    y, x = (axis / 400 - 0.5 for axis in np.mgrid[: shape[0], : shape[1]])
    light = 1 + x * draw.uniform(-0.2, 0.2) + y * draw.uniform(-0.2, 0.2) - draw.uniform(0, 0.2) * (x**2 + y**2)
    return np.asarray(light, dtype=np.float32)


def shadow(draw: Draw, shape: tuple[int, int], softness: float) -> Plane:
    """Return a light that is 30 to 60 % darker on one side of an edge of any direction: straight, or round as a hand.

    Args:
        draw: the random numbers.
        shape: height and width.
        softness: pixels from the dark to the light.
    """
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle, (row, column) = draw.uniform(0, 2 * math.pi), draw.uniform(0.25, 0.75, 2) * shape
    distance = (x - column) * math.cos(angle) + (y - row) * math.sin(angle)
    if draw.random() < 0.4:
        radius = draw.uniform(250, 600)
        distance = radius - np.hypot(x - column - radius * math.cos(angle), y - row - radius * math.sin(angle))
    dark = draw.uniform(0.3, 0.6)
    return np.asarray(1 - dark / (1 + np.exp(-(4 * distance / softness).clip(-50, 50))), dtype=np.float32)


def moved(draw: Draw, sheet: Sheet) -> Sheet:
    """Blur a sheet: out of focus, or because the camera moved."""
    if draw.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(sheet, (0, 0), draw.uniform(2, 6)), dtype=np.float32)
    length, angle = draw.uniform(7, 24), math.radians(draw.uniform(0, 180))
    offsets = np.mgrid[-16:17, -16:17]
    along = offsets[1] * math.cos(angle) + offsets[0] * math.sin(angle)
    across = offsets[1] * math.sin(angle) - offsets[0] * math.cos(angle)
    kernel = (np.abs(along) <= length / 2) * (1.2 - np.abs(across)).clip(0, 1)
    return np.asarray(cv2.filter2D(sheet, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def photograph(draw: Draw, sheet: Sheet, light: Plane | float = 1.0, *, colour_noise: float = 3) -> Image.Image:
    """Photograph a sheet in uneven light: white balance, slight blur, noise of grey and of colour, 8 bits.

    Args:
        draw: the random numbers.
        sheet: (H, W, 3).
        light: a shadow (H, W).
        colour_noise: largest standard deviation of a channel's own noise, in levels.

    Returns:
        in the mode RGB; one in ten is grey, in the mode L.
    """
    shape = sheet.shape[:2]
    exposure, balance = draw.uniform(185, 250), draw.uniform(0.95, 1.02, 3).astype(np.float32)
    levels = sheet * (uneven_light(draw, shape) * light * np.float32(exposure))[..., None] * balance
    levels = cv2.GaussianBlur(levels, (0, 0), draw.uniform(0.4, 1))
    noise = draw.standard_normal((*shape, 1), dtype=np.float32) * np.float32(draw.uniform(1.5, 5))
    noise = noise + draw.standard_normal((*shape, 3), dtype=np.float32) * np.float32(draw.uniform(0, colour_noise))
    image = Image.fromarray((levels + noise).clip(0, 255).round().astype(np.uint8))
    return image.convert("L") if draw.random() < 0.1 else image
