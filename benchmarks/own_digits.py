"""Accuracy of `mnist-amp predict --images` on image files that are not MNIST's.

    python benchmarks/own_digits.py

Trains with `mnist-amp fit` in a temporary folder. Writes the 10,000 test images as files in several ways, and digits in
fonts and drawn with pens of several widths. Predicts them all, and saves the accuracies with the environment to
docs/results/own-digits.json and own-digits.md. About 10 minutes on 2 CPU cores.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

import predicted_files
import strokes
from machine import RESULTS, keep
from mnist_amp.data import mnist
from mnist_amp.reporting.tables import markdown
from predicted_files import command

SEED = 0
Draw = np.random.Generator

FONTS = {  # included in matplotlib
    "DejaVu Sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "DejaVu Sans Mono": (
        *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    ),
    "DejaVu Serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    "STIX (Times)": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    "Computer Modern": ("cmr10", "cmb10", "cmss10", "cmtt10"),
}
FONT_SIZES = (24, 60, 180)  # pixels
PENS = (1, 2, 4, 8, 12, 16, 24)  # widths in percent of the image


def enlarged(image: Image.Image, draw: Draw) -> Image.Image:
    return image.resize((280, 280), Image.Resampling.BICUBIC)


def padded(image: Image.Image, draw: Draw) -> Image.Image:
    width, height = (int(side) for side in draw.integers(60, 200, 2))
    wide = Image.new("L", (width, height))
    wide.paste(image, (int(draw.integers(0, width - 28)), int(draw.integers(0, height - 28))))
    return wide


def coloured(image: Image.Image, draw: Draw) -> Image.Image:
    """Colour ink and paper so that red, green or blue differs by at least 100 of 255 levels."""
    paper = ink = np.zeros(3)
    while np.abs(ink - paper).max() < 100:
        paper, ink = draw.integers(0, 256, (2, 3)).astype(float)
    shade = np.asarray(image)[..., None] / 255
    return Image.fromarray((paper * (1 - shade) + ink * shade).astype(np.uint8))


def cut(image: Image.Image, draw: Draw) -> Image.Image:
    return image.crop(image.point(lambda level: level > 40 and 255).getbbox())


def photographed(image: Image.Image, draw: Draw) -> Image.Image:
    """Put it in grey ink on a larger sheet, with uneven light and noise."""
    ink = np.zeros((480, 400))
    top, left = int(draw.integers(0, 200)), int(draw.integers(0, 120))
    ink[top : top + 280, left : left + 280] = np.asarray(enlarged(image, draw)) / 255
    y, x = np.mgrid[0:480, 0:400] / 400 - 0.5
    light = 200 + x * draw.uniform(-40, 40) + y * draw.uniform(-40, 40) - 30 * (x**2 + y**2)
    return Image.fromarray((light * (1 - 0.7 * ink) + draw.normal(0, 5, ink.shape)).clip(0, 255).astype(np.uint8))


# how a test image is changed, and the suffix of its file
VARIANTS: dict[str, tuple[Callable[[Image.Image, Draw], Image.Image], str]] = {
    "as PNG files": (lambda image, draw: image, "png"),
    "inverted: dark on light": (lambda image, draw: ImageOps.invert(image), "png"),
    "enlarged to 280 x 280": (enlarged, "png"),
    "padded off-centre, to 60 to 200 pixels a side": (padded, "png"),
    "in two colours": (coloured, "png"),
    "as JPEG files": (lambda image, draw: image, "jpg"),
    "as in a photograph: shaded, noisy, 400 x 480, JPEG": (photographed, "jpg"),
    "cut off where the ink ends": (cut, "png"),
}
HARDER = ("as in a photograph: shaded, noisy, 400 x 480, JPEG", "cut off where the ink ends")
POINTS = 0.003  # largest allowed difference of the accuracy from that of the unchanged images; HARDER is exempt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="number of test images")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        command("fit", cwd=root)
        command("test", cwd=root)
        tested = json.loads((root / "lightning_logs/version_0/test_best/metrics.json").read_text(encoding="utf-8"))
        images, digits = (part.numpy()[: args.images] for part in mnist.load(root / "data", train=False))
        plain = accuracy(predicted(written(images, digits, "as PNG files", root / "plain"), "--preprocess", "none"))
        variants = {
            name: accuracy(predicted(written(images, digits, name, root / f"variant-{index}")))
            for index, name in enumerate(VARIANTS)
        }
        fonts = {name: counted(predicted(lettered(name, root / name))) for name in FONTS}
        pens = {str(width): counted(predicted(drawn(width, root / f"pen-{width}"))) for width in PENS}
    metrics = {"images": len(images), "test_accuracy": tested["accuracy"], "precision": tested["precision"]}
    found = {"plain": plain, "variants": variants, "fonts": fonts, "pens": pens}
    keep(args.results / "own-digits.json", "own_digits.py", table, **metrics, **found)
    off = [name for name, score in variants.items() if name not in HARDER and abs(score - plain) > POINTS]
    if off:
        sys.exit(f"More than {100 * POINTS:g} points from the plain accuracy: {', '.join(off)}.")


def written(images: NDArray[np.uint8], digits: NDArray[np.int64], variant: str, folder: Path) -> Path:
    """Write images (N, 28, 28) as files `INDEX-DIGIT.png`, or as JPEG, in a variant, and return the folder."""
    change, ending = VARIANTS[variant]
    draw = np.random.default_rng(SEED)
    folder.mkdir(parents=True)
    for index, (image, digit) in enumerate(zip(images, digits, strict=True)):
        change(Image.fromarray(image), draw).save(folder / f"{index:05}-{digit}.{ending}")
    return folder


def lettered(family: str, folder: Path) -> Path:
    """Write the ten digits in each font of a family and each size, black on white."""
    folder.mkdir(parents=True)
    for face in FONTS[family]:
        for size in FONT_SIZES:
            font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf"), size)
            for digit in range(10):
                image = Image.new("L", (2 * size, 2 * size), "white")
                ImageDraw.Draw(image).text((size, size), str(digit), "black", font, anchor="mm")
                image.save(folder / f"{face}{size}-{digit}.png")
    return folder


def drawn(width: int, folder: Path) -> Path:
    """Write the ten digits drawn with a pen of a width in percent of the image."""
    folder.mkdir(parents=True)
    for digit in range(10):
        strokes.draw_digit(digit, size=400, width=4 * width).save(folder / f"pen-{digit}.png")
    return folder


def predicted(folder: Path, *options: str) -> list[tuple[int, int]]:
    """Predict the images of a folder with the newest run beside it; return digit and guess (-1 for none) of each."""
    found = predicted_files.predicted(folder.parent, [folder.name], *options)
    return [(int(one.file.stem[-1]), int(one.guess or -1)) for one in found]


def accuracy(pairs: list[tuple[int, int]]) -> float:
    return sum(digit == guess for digit, guess in pairs) / len(pairs)


def counted(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Count the images, and the wrong guesses by kind, such as `1 as 7`."""
    wrong = [f"{digit} as {guess if guess >= 0 else 'nothing'}" for digit, guess in pairs if digit != guess]
    return {
        "pictures": len(pairs),  # words: allow (a key of saved results)
        "wrong": {text: wrong.count(text) for text in sorted(set(wrong))},
    }


def table(record: dict[str, Any]) -> str:
    """Return the Markdown tables."""
    plain = record["plain"]
    rows = [
        [name, f"{score:.2%}", f"{100 * (score - plain):+.2f}"]
        for name, score in {"28 x 28, unchanged (`--preprocess none`)": plain, **record["variants"]}.items()
    ]
    where = f"{record['device']}, torch {record['versions']['torch']}, {record['date']}"
    return "\n".join(
        [
            f"{record['images']:,} test images; `mnist-amp test` of the run reports {record['test_accuracy']:.2%}:",
            "",
            markdown([["images", "accuracy", "difference in percentage points"], *rows]),
            "",
            markdown(
                [
                    [f"digits printed in sizes {', '.join(map(str, FONT_SIZES))}", "fonts", "correct", "wrong"],
                    *([name, str(len(FONTS[name])), *_cells(found)] for name, found in record["fonts"].items()),
                ]
            ),
            "",
            markdown(
                [
                    ["digits drawn with a pen", "correct", "wrong"],
                    *([f"{pen}% of the image wide", *_cells(found)] for pen, found in record["pens"].items()),
                ]
            ),
            "",
            f"One run of the default recipe ({record['precision']}), on: {where}. `{record['command']}`",
            "",
        ]
    )


def _cells(found: dict[str, Any]) -> list[str]:
    wrong = found["wrong"]
    shown = ", ".join(text if count == 1 else f"{text} ({count} times)" for text, count in wrong.items())
    images = found["pictures"]  # words: allow (a key of saved results)
    return [f"{images - sum(wrong.values())} of {images}", shown or "-"]


if __name__ == "__main__":
    main()
