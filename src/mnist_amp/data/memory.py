"""Whether images fit into memory, before they are read."""

import math
import os

import torch

from mnist_amp.data.image_set import Facts
from mnist_amp.errors import RequestError

GIGA = 1e9


def check_memory(facts: Facts, train: bool, device: torch.device) -> None:
    """Refuse images that do not fit into the free memory of this machine, or of the device that uses them.

    Args:
        facts: of the images.
        train: whether the training images are read; else the test images.
        device: that uses the images.

    Raises:
        RequestError: they do not fit.
    """
    number = facts.train_size if train else facts.test_size
    needed = number * math.prod(facts.image_shape)  # uint8
    for place, free in (("this machine", free_host_memory()), (str(device), _free_device_memory(device))):
        if free is not None and needed > free:
            raise RequestError(
                f"the {number:,} images of {' x '.join(map(str, facts.image_shape))} take {needed / GIGA:.1f} GB of "
                f"memory, but {place} has {free / GIGA:.1f} GB free. Lower data.image_size, or give data.channels 1."
            )


def free_host_memory() -> int | None:
    """Return the bytes of memory that programs can still get; None if the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  (no path of the user's)
            found = dict(line.split(":") for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _free_device_memory(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
