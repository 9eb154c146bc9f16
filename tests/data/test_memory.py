"""The memory that images take: the check before they are read, and the peak while they are."""

import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_amp.data import memory
from mnist_amp.data.parallel import WAITING, map_in_threads
from mnist_amp.errors import RequestError

CPU = torch.device("cpu")
SHAPE = (3, 64, 64)
NUMBER, SIDE = 1000, 500  # of images on the disk, 250 MB
CONSTANT = 60e6  # bytes, for blocks, batches and the order of the images
CLASS = f"""
import torch

class Large:
    def __init__(self, root, train=True):
        self.size = {NUMBER} if train else 1

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.full((1, {SIDE}, {SIDE}), index % 256, dtype=torch.uint8), index % 2

class Named(Large):
    classes = "a", "b"
"""
# reads the images for training and a batch of them, and prints by how many bytes the peak of the memory grows
PEAK = """
import json, re, sys
from pathlib import Path

from lightning.pytorch import Trainer
from mnist_amp.data import ClassificationDataModule

def peak():  # ru_maxrss would begin with the memory of the process that starts this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

trainer, before = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), peak()
data = ClassificationDataModule(**json.loads(sys.argv[1]))
data.trainer = trainer
data.prepare_data()
data.setup("fit")
images = next(iter(data.train_dataloader())).images
print(json.dumps([peak() - before, data.images.nbytes, images.shape]))
"""


def test_images_that_fit_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 2 * 10**9)
    memory.check_memory(100_000, SHAPE, CPU)
    monkeypatch.setattr(memory, "free_host_memory", lambda: None)
    memory.check_memory(10**9, SHAPE, CPU)


def test_images_that_do_not_fit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 10**9)
    with pytest.raises(RequestError) as error:
        memory.check_memory(100_000, SHAPE)
    assert str(error.value) == (
        "the 100,000 images of 3 x 64 x 64 take 1.2 GB of memory, but this machine has 1.0 GB free. Lower "
        "data.image_size, or give data.channels 1."
    )
    memory.check_memory(1000, SHAPE)


def test_each_process_of_a_machine_has_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 2 * 10**9)
    with pytest.raises(RequestError) as error:
        memory.check_memory(100_000, SHAPE, CPU, processes=2)
    assert str(error.value) == (
        "the 100,000 images of 3 x 64 x 64 take 1.2 GB of memory in each of 2 processes, but this machine has 2.0 GB "
        "free. Lower data.image_size, or give data.channels 1."
    )


def test_this_machine_has_memory() -> None:
    free = memory.free_host_memory()
    assert free is None or free > 10**6


def write_idx_files(folder: Path, suffix: str = "") -> None:
    """Write idx files with NUMBER training images of zeros."""
    folder.mkdir()
    for name, number in (("train", NUMBER), ("t10k", 2)):
        labels = struct.pack(">HBBI", 0, 8, 1, number) + (np.arange(number) % 2).astype(np.uint8).tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)
        header = struct.pack(">HBB3I", 0, 8, 3, number, SIDE, SIDE)
        path = folder / f"{name}-images-idx3-ubyte"
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + number * SIDE * SIDE)  # zeros that take no place on the disk
        if suffix:
            with path.open("rb") as unpacked, gzip.open(f"{path}{suffix}", "wb", compresslevel=1) as archive:
                shutil.copyfileobj(unpacked, archive, 2**20)
            path.unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"folder": "plain"}, (1, SIDE, SIDE)),
        ({"folder": "packed"}, (1, SIDE, SIDE)),
        ({"folder": "plain", "image_size": [300, 600], "channels": 3}, (3, 300, 600)),
        ({"dataset": "large.Named"}, (1, SIDE, SIDE)),
        ({"dataset": "large.Large"}, (1, SIDE, SIDE)),
        ({"dataset": "large.Named", "image_size": 600}, (1, 600, 600)),
    ],
    ids=["idx", "gz", "resized", "own", "without-classes", "own-resized"],
)
def test_reading_takes_the_memory_of_the_images_alone(
    tmp_path: Path, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    write_idx_files(tmp_path / "plain")
    if settings.get("folder") == "packed":
        write_idx_files(tmp_path / "packed", ".gz")
    (tmp_path / "large.py").write_text(CLASS)
    program = [sys.executable, "-c", PEAK, json.dumps({"batch_size": 4, **settings})]
    done = subprocess.run(program, cwd=tmp_path, check=True, capture_output=True, text=True)
    peak, images, batch = json.loads(done.stdout.splitlines()[-1])
    assert images == NUMBER * np.prod(shape)
    assert batch == [4, *shape]
    assert images * 0.9 < peak < images + CONSTANT


def test_threads_have_few_items_at_a_time() -> None:
    taken: list[int] = []

    def items() -> Any:
        for index in range(3 * WAITING + 1):
            taken.append(index)
            yield index

    results = map_in_threads(lambda index: index * 2, items())
    assert next(results) == 0
    assert len(taken) == WAITING
    assert list(results) == [index * 2 for index in range(1, 3 * WAITING + 1)]
