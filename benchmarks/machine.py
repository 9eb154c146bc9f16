"""The machine of a measurement, and how its results are saved: a file for each kind of machine.

Nothing here imports Lightning, because some programs must run without it.
"""

import datetime
import json
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mnist_amp import __version__
from mnist_amp.torch_internals import cpu_multiplies

RESULTS = Path(__file__).parents[1] / "docs" / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = "16-mixed" if DEVICE == "cuda" else "bf16-mixed"


def machine() -> str:
    """Return the kind of machine, as in the names of files: cpu, cpu-bf16 (with instructions for it), or a GPU."""
    if DEVICE == "cuda":
        return re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return "cpu-bf16" if cpu_multiplies(torch.bfloat16) else "cpu"


MACHINE = machine()


def device() -> str:
    """Name the device; of a CPU, also what decides about its speed."""
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    instructions = f"{torch.backends.cpu.get_cpu_capability()}{' and bfloat16' if MACHINE == 'cpu-bf16' else ''}"
    cores = f"{os.cpu_count()} cores, threads: {torch.get_num_threads()}"
    return f"CPU ({cpu_model()}, {cores}, instructions: {instructions})"


def cpu_model() -> str:
    """Return the CPU's name as Linux has it, else its architecture."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return found[1] if found else platform.machine()


def environment() -> dict[str, Any]:
    """Return the date, the device, and the versions of the packages that a measurement depends on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics")
    versions = {"mnist-amp": __version__, "python": platform.python_version()}
    versions |= {package: version(package) for package in packages}
    return {"date": datetime.date.today().isoformat(), "device": device(), "versions": versions}


def keep(path: Path, command: str, table: Callable[[dict[str, Any]], str], **results: Any) -> None:
    """Save results as JSON with their environment and command, and their table as Markdown; print the table."""
    record = environment() | {"command": f"python benchmarks/{command}", **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(table(record))
