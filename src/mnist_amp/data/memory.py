"""Whether images fit into memory, before they are read."""

import math
import os

import torch

from mnist_amp.errors import RequestError

GIGA = 1e9


def check_memory(
    number: int, image_shape: tuple[int, int, int], device: torch.device | None = None, processes: int = 1
) -> None:
    """Refuse images that do not fit into the free memory of this machine, or of the device that uses them.

    The sources read images into one tensor of their size, so this is the peak of the memory that they take.

    Args:
        number: of the images.
        image_shape: channels, height and width.
        device: that uses the images; by default no other than this machine's CPU.
        processes: of this machine that will read the same images, each into its own memory.

    Raises:
        RequestError: they do not fit.
    """
    needed = number * math.prod(image_shape)  # uint8
    places = [("this machine", free_host_memory(), processes)]
    if device is not None:
        places.append((str(device), _free_device_memory(device), 1))
    for place, free, copies in places:
        if free is not None and needed * copies > free:
            each = f" in each of {copies} processes" if copies > 1 else ""
            raise RequestError(
                f"the {number:,} images of {' x '.join(map(str, image_shape))} take {needed / GIGA:.1f} GB of "
                f"memory{each}, but {place} has {free / GIGA:.1f} GB free. Lower data.image_size, or give "
                "data.channels 1."
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
