"""The command `profile`: where a training step's time goes, and which precision its operations run in."""

import json
import statistics
import sys
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import RequestError, RunError, warn
from mnist_amp.measuring import profile_report
from mnist_amp.measuring.dtypes import OperationLog, kernel_rows, layers_of
from mnist_amp.measuring.gradients import gradients_of
from mnist_amp.measuring.measure import ENDLESS, FitsCLI, MeasuredFit
from mnist_amp.measuring.step_parts import ACTIONS, HostClock, Recorder, StepProfiler, StreamClock, parts_of
from mnist_amp.number_types import NonNegativeInt, PositiveInt
from mnist_amp.reporting import plots
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.training.precision import described_precision, device_name, versions

# steps with marks and without take turns, as a machine's speed changes; odd, so that what comes every so many steps, as
# picking out images does, comes to both
ROUND = 25
GRADIENT_STEPS = 20
KERNEL_STEPS = 5
BUSY = 2  # times the median that a tenth of the steps take
# with its validation: what comes between steps is no part of them
ENDLESS_FIT = {key: value for key, value in ENDLESS.items() if key != "limit_val_batches"}


class Measurement(Callback):
    """Measures the first steps of a fit, and then ends it.

    Args:
        steps: to time, once without marks and once with them.
        warmup: steps before those.

    Attributes:
        record: what was found; empty until it is whole.
    """

    def __init__(self, steps: int, warmup: int) -> None:
        self.steps, self.warmup = steps, warmup
        self.record: dict[str, Any] = {}
        self.script = self._script()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.model = trainer, cast(Any, pl_module).model
        clock = StreamClock() if trainer.strategy.root_device.type == "cuda" else HostClock()
        self.profiler = StepProfiler(clock, self.script, self._end)
        trainer.profiler = self.profiler  # type: ignore[attr-defined]

    def _script(self) -> Generator[None]:
        yield from repeat(None, self.warmup)
        plain, marked = Recorder(self.profiler.clock), Recorder(self.profiler.clock)
        for done in range(0, self.steps, ROUND):
            self.profiler.watch(plain, {})
            yield from repeat(None, min(ROUND, self.steps - done))
            self.profiler.watch(marked, ACTIONS)
            with parts_of(self.trainer, marked):
                yield from repeat(None, min(ROUND, self.steps - done))
        found = timing(plain.times(), marked.times())
        batches = self.trainer.accumulate_grad_batches  # that an optimizer step takes
        with gradients_of(self.trainer.optimizers[0]) as gradients:
            yield from repeat(None, GRADIENT_STEPS * batches)
        found["gradients"] = gradients.record()
        recorder = Recorder(self.profiler.clock)
        self.profiler.watch(recorder, ACTIONS)
        with parts_of(self.trainer, recorder), layers_of(self.model) as layers, OperationLog(recorder) as operations:
            yield from repeat(None, batches)
        found |= {"layers": layers, "operations": operations.rows(), "kernels": None}
        if self.trainer.strategy.root_device.type == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as kernels:
                yield from repeat(None, KERNEL_STEPS)
                torch.cuda.synchronize()
            found["kernels"] = kernel_rows(kernels)
        self.record = self._circumstances() | found

    def _circumstances(self) -> dict[str, Any]:
        optimizer = self.trainer.optimizers[0]
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device_name(self.trainer),
            "versions": versions(),
            "precision": described_precision(self.trainer),
            "optimizer": type(optimizer).__name__,
            "fused": bool(optimizer.defaults.get("fused")),
            "steps": self.steps,
            "warmup": self.warmup,
        }

    def _end(self) -> None:
        # not `should_stop`, upon which Lightning validates
        self.trainer.fit_loop.epoch_loop.max_steps = self.trainer.global_step


def timing(plain: list[dict[str, int]], marked: list[dict[str, int]]) -> dict[str, Any]:
    """Sum up steps that were timed without marks and with them, given as nanoseconds by part.

    Returns:
        `step` and `parts` in seconds per step, with the shares of the mean, which add up to 1; `parts` in the order of
        `profile_report.PARTS`; `marks_cost`, how many times longer the median step takes with them.
    """
    steps, bare = [sum(step.values()) for step in marked], [sum(step.values()) for step in plain]
    total = sum(steps)
    names = [name for name in profile_report.PARTS if any(name in step for step in marked)]
    parts = [{"part": name, **_spread([step.get(name, 0) for step in marked], total)} for name in names]
    cost = statistics.median(steps) / statistics.median(bare)
    return {
        "step": _spread(steps, total),
        "unmarked_step": _spread(bare, sum(bare)),
        "marks_cost": cost,
        "parts": parts,
    }


def _spread(nanoseconds: list[int], whole: int) -> dict[str, Any]:
    low, high = np.percentile(nanoseconds, (10, 90)) / 1e9
    return {
        "mean": statistics.fmean(nanoseconds) / 1e9,
        "median": statistics.median(nanoseconds) / 1e9,
        "p10": float(low),
        "p90": float(high),
        "nanoseconds": sum(nanoseconds),
        "share": sum(nanoseconds) / whole,
    }


def profile(cli: FitsCLI, steps: PositiveInt = 200, warmup: NonNegativeInt = 20) -> None:
    """Measure a fit's first steps, and write and print what was found.

    Args:
        cli: its command line
        steps: steps to time, once with marks at the borders of their parts and once without
        warmup: steps before those

    Raises:
        RequestError: the steps have no parts.
        RunError: the fit ended before it was measured.
    """
    settings = cli.fit_settings()
    if settings["model"]["steps_per_execution"] > 1:
        raise RequestError(
            f"model.steps_per_execution is {settings['model']['steps_per_execution']}, and steps that are taken at "
            "once have no parts to measure. Leave it at 1."
        )
    sys.stderr.write(f"mnist-amp: timing {steps:,} steps twice, with marks and without, after {warmup:,} to warm up\n")
    measurement = Measurement(steps, warmup)
    with closing(measurement.script):
        MeasuredFit(settings, {}, [measurement], **ENDLESS_FIT)
    if not measurement.record:
        raise RunError("the fit was stopped before it was measured; leave out the callback that stops it.")
    asked = None if settings["trainer"]["plugins"] else settings["trainer"]["precision"]
    record = {"command": cli.command_line, "requested_precision": asked, **measurement.record, "settings": settings}
    if record["step"]["p90"] > BUSY * record["step"]["median"]:
        warn("some steps took much longer than most: the machine is busy with something else, so measure again.")
    folder = write(record, Path(settings["trainer"]["default_root_dir"] or "."))
    print(profile_report.terminal(record, str(folder)), flush=True)


def write(record: dict[str, Any], root: Path) -> Path:
    """Write the results to a new folder, which there is not if that fails."""
    with folders.transactional_run_dir(root, "profile") as folder:
        with atomic_write(folder / "results.json") as draft:
            draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        with atomic_write(folder / "profile.png") as draft:
            plots.shares({part["part"]: part["share"] for part in record["parts"]}, draft)
        with atomic_write(folder / "gradients.png") as draft:
            plots.gradient_histogram(record["gradients"]["exponents"], draft)
        with atomic_write(folder / "report.md") as draft:
            draft.write_text(profile_report.markdown(record), encoding="utf-8")
    return folder


class ProfileCLI(FitsCLI):
    name = "profile"
    function = profile


run = ProfileCLI.run
