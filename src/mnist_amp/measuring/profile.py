"""`mnist-amp profile`: where the time of a training step goes, and which precision its operations run in."""

import statistics
import sys
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import RequestError, RunError, warn
from mnist_amp.lightning_internals import end_fit
from mnist_amp.measuring import profile_report
from mnist_amp.measuring.dtypes import OperationLog, kernels_of, layers_of
from mnist_amp.measuring.gradients import gradients_of
from mnist_amp.measuring.measured_fit import ENDLESS, MeasuredFit, MeasuringCLI
from mnist_amp.measuring.module_access import network_of
from mnist_amp.measuring.profile_records import Profile, ProfileResults, Spread, StepTimes
from mnist_amp.measuring.step_parts import ACTIONS, HostClock, Recorder, StepProfiler, StreamClock, parts_of
from mnist_amp.number_types import NonNegativeInt, PositiveInt
from mnist_amp.reporting import plots
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.training.precision import described_precision, device_name, versions
from mnist_amp.wording import counted

# Steps with marks and steps without take turns, because the speed of a machine changes. The number is odd, so that work
# that comes every few steps, such as picking out the images, comes to both.
ROUND = 25
GRADIENT_STEPS = 20
KERNEL_STEPS = 5
BUSY = 2  # the machine is busy if the slowest tenth of the steps take more than this many times the median


class Measurement(Callback):
    """Profiles the first steps of a fit, and then stops the fit.

    Args:
        steps: number of steps to time with marks, and again without.
        warmup: number of steps before those.

    Attributes:
        result: the profile; None until it is complete.
    """

    def __init__(self, steps: int, warmup: int) -> None:
        self.steps, self.warmup = steps, warmup
        self.result: Profile | None = None
        self.script = self._script()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.network = trainer, network_of(pl_module)
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
        times = step_times(plain.times(), marked.times())
        batches = self.trainer.accumulate_grad_batches  # per optimizer step
        with gradients_of(self.trainer.optimizers[0]) as gradients:
            yield from repeat(None, GRADIENT_STEPS * batches)
        recorder = Recorder(self.profiler.clock)
        self.profiler.watch(recorder, ACTIONS)
        with parts_of(self.trainer, recorder), layers_of(self.network) as layers, OperationLog(recorder) as operations:
            yield from repeat(None, batches)
        kernels = None
        if self.trainer.strategy.root_device.type == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as cuda_profiler:
                yield from repeat(None, KERNEL_STEPS)
                torch.cuda.synchronize()
            kernels = kernels_of(cuda_profiler)
        optimizer = self.trainer.optimizers[0]
        self.result = Profile(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            device=device_name(self.trainer),
            versions=versions(),
            precision=described_precision(self.trainer),
            optimizer=type(optimizer).__name__,
            fused=bool(optimizer.defaults.get("fused")),
            steps=self.steps,
            warmup=self.warmup,
            times=times,
            gradients=gradients.sizes(),
            layers=layers,
            operations=operations.operations(),
            kernels=kernels,
        )

    def _end(self) -> None:
        # not `should_stop`, which makes Lightning validate first
        end_fit(self.trainer)


def step_times(plain: list[dict[str, int]], marked: list[dict[str, int]]) -> StepTimes:
    """Sum up the times of steps.

    Args:
        plain: of steps without marks: nanoseconds by part.
        marked: the same of steps with marks.

    Returns:
        The parts are in the order of `profile_report.PARTS`.
    """
    steps, bare = [sum(step.values()) for step in marked], [sum(step.values()) for step in plain]
    total = sum(steps)
    names = [name for name in profile_report.PARTS if any(name in step for step in marked)]
    return StepTimes(
        step=_spread(steps, total),
        unmarked_step=_spread(bare, sum(bare)),
        marks_cost=statistics.median(steps) / statistics.median(bare),
        parts={name: _spread([step.get(name, 0) for step in marked], total) for name in names},
    )


def _spread(nanoseconds: list[int], total: int) -> Spread:
    low, high = np.percentile(nanoseconds, (10, 90)) / 1e9
    return Spread(
        mean=statistics.fmean(nanoseconds) / 1e9,
        median=statistics.median(nanoseconds) / 1e9,
        p10=float(low),
        p90=float(high),
        nanoseconds=sum(nanoseconds),
        share=sum(nanoseconds) / total,
    )


def profile(cli: MeasuringCLI, steps: PositiveInt = 200, warmup: NonNegativeInt = 20) -> None:
    """Profile the first steps of a fit, and print and write the results.

    Args:
        cli: the command line
        steps: number of steps to time with marks between their parts, and again without marks
        warmup: number of steps before those

    Raises:
        RequestError: several steps per execution are requested.
        RunError: the fit ended before it was measured.
    """
    settings = cli.fit_settings()
    if settings["model"]["steps_per_execution"] > 1:
        raise RequestError(
            f"model.steps_per_execution is {settings['model']['steps_per_execution']}, but {cli.name} measures the "
            "parts of single steps. Leave it at 1."
        )
    sys.stderr.write(
        f"mnist-amp: timing {counted(steps, 'step')} with marks and as many without, after "
        f"{counted(warmup, 'warm-up step')}\n"
    )
    measurement = Measurement(steps, warmup)
    with closing(measurement.script):
        MeasuredFit(settings, {}, [measurement], **ENDLESS)
    if measurement.result is None:
        raise RunError("the fit ended before it was measured; leave out the callback that ends it.")
    requested = None if settings["trainer"]["plugins"] else settings["trainer"]["precision"]
    results = ProfileResults(cli.command_line, requested, measurement.result, settings)
    times = results.profile.times.step
    if times.p90 > BUSY * times.median:
        warn("some steps took much longer than most: the machine is busy with other work, so measure again.")
    try:
        folder = write(results, Path(settings["trainer"]["default_root_dir"] or "."))
    except (OSError, RequestError, RunError):
        print(profile_report.terminal(results, None), flush=True)
        raise
    print(profile_report.terminal(results, str(folder)), flush=True)


def write(results: ProfileResults, root: Path) -> Path:
    """Write the results to a new folder, and return it; if that fails, the folder is removed."""
    shares = {name: spread.share for name, spread in results.profile.times.parts.items()}
    with folders.transactional_run_dir(root, "profile") as folder:
        results.save(folder / "results.json")
        with atomic_write(folder / "profile.png") as temporary:
            plots.shares(shares, temporary)
        with atomic_write(folder / "gradients.png") as temporary:
            plots.gradient_histogram(results.profile.gradients.exponents, temporary)
        with atomic_write(folder / "report.md") as temporary:
            temporary.write_text(profile_report.markdown(results), encoding="utf-8")
    return folder


class ProfileCLI(MeasuringCLI):
    name = "profile"
    function = profile


run = ProfileCLI.run
