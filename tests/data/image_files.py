"""Small files that tests of data sets write."""

import gzip
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

HAS_AVIF = find_spec("PIL.AvifImagePlugin") is not None  # from Pillow 11.3 on


def write_idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    """Write an array in big-endian order as an idx file, compressed if its name ends in .gz."""
    header = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_image(path: Path, value: int | tuple[int, int, int] = 0, size: tuple[int, int] = (4, 4)) -> None:
    """Write an image of one colour, grey or RGB; `size` is height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size[::-1], value).save(path)


def counting(*shape: int) -> np.ndarray:
    """Return an array of uint8 that counts from 0 and begins again after 250."""
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
