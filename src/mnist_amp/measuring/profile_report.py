"""The printed table and `report.md` of `mnist-amp profile`, from its records; no torch here."""

import math
from collections.abc import Iterable
from dataclasses import astuple, fields, replace
from typing import NamedTuple

from mnist_amp.cli.arguments import find
from mnist_amp.measuring.environment import join_versions, measured_on
from mnist_amp.measuring.profile_records import (
    GradientSizes,
    Kernel,
    Layer,
    Operation,
    ProfileResults,
    Spread,
    StepTimes,
)
from mnist_amp.reporting import tables
from mnist_amp.wording import described_class

# in the order of a step
PARTS = {
    "waiting for data": "waiting until the loader hands over a batch",
    "transfer": "moving the batch to the device, unless it is there",
    "forward": "the module's forward, with autocast's casts",
    "loss": "cross-entropy, and its scaling if there is a scaler",
    "training_step": "the rest of the module's training_step",
    "backward": "the gradients",
    "unscale": "unscaling the gradients and checking them for inf and NaN",
    "optimizer": "the update, clipping, and zeroing the gradients",
    "scaler update": "the next loss scale",
    "the loop itself": "the rest: Lightning's loop and hooks, entering autocast, training metrics, schedules",
}
FUSED_UNSCALE = "checking the gradients for inf and NaN; the fused optimizer unscales them in its own kernel"
OUTSIDE = ("waiting for data", "transfer", "the loop itself")  # not part of the network and its training
FILES = "report.md, profile.png, gradients.png, results.json"
KERNELS_SHOWN = 15
NO_YES = ("no", "yes")


class PartLine(NamedTuple):
    """A line of the tables: a part of the step or, last, the step itself."""

    name: str
    percent: float
    times: Spread


def terminal(results: ProfileResults, folder: str | None) -> str:
    """Return the text to print; `folder` is that of the files, None if there are no files."""
    times = results.profile.times
    lines = [
        f"{line.name:<16}  {line.percent:>5.1f}%  {_microseconds(line.times.median):>10}  {_range(line.times)}"
        for line in _part_lines(times)
    ]
    head = "part               share   median µs  10% to 90% of steps, µs   (shares are of the mean)"
    found = {**_facts(results), "marks": _marks_cost(times)} | ({"files": f"{folder}/ ({FILES})"} if folder else {})
    return "\n".join(["", head, *lines, "", tables.facts(found)])


def markdown(results: ProfileResults) -> str:
    """Return the content of `report.md`."""
    profile = results.profile
    mean = _microseconds(profile.times.step.mean)
    slices = [f'    "{line.name}" : {line.percent:.1f}' for line in _part_lines(profile.times)[:-1] if line.percent > 0]
    sections = [
        "# Where the time of a training step goes",
        f"Measured on {results.date} by `{results.command}`",
        "\n".join(["```mermaid", f"pie showData title A step of {mean} µs, in percent", *slices, "```"]),
        _parts_table(profile.times, profile.fused),
        f"{_clock(profile.kernels)} The marks {_marks_cost(profile.times)}. "
        "Shares are of the mean, so they add up to the step.",
        "## Which precision the layers ran in",
        _table([field.name for field in fields(Layer)], map(astuple, profile.layers)),
        "## Which precision the operations ran in",
        "Recorded from one optimizer step, as torch dispatched it; `_to_copy` is a cast.",
        _operations_table(profile.operations),
        *_kernel_sections(profile.kernels),
        "## How large the gradients are",
        _gradients(profile.gradients),
        "![Gradients by magnitude, against the ranges of fp16 and bfloat16](gradients.png)",
        measured_on(_facts(results)),
    ]
    return "\n\n".join(sections) + "\n"


def percentages(shares: list[float]) -> list[float]:
    """Round shares that add up to 1 to tenths of a percent that add up to 100.

    >>> percentages([1 / 3, 1 / 3, 1 / 3])
    [33.4, 33.3, 33.3]
    """
    tenths = [share * 1000 for share in shares]
    rounded = [math.floor(value) for value in tenths]
    missing = 1000 - sum(rounded)
    for index in sorted(range(len(tenths)), key=lambda index: rounded[index] - tenths[index])[:missing]:
        rounded[index] += 1
    return [value / 10 for value in rounded]


def _part_lines(times: StepTimes) -> list[PartLine]:
    percents = percentages([spread.share for spread in times.parts.values()])
    lines = [PartLine(name, percent, times.parts[name]) for name, percent in zip(times.parts, percents, strict=True)]
    return [*lines, PartLine("step", 100.0, times.step)]


def _parts_table(times: StepTimes, fused: bool) -> str:
    meanings = {**PARTS, "step": "", **({"unscale": FUSED_UNSCALE} if fused else {})}
    head = ("part", "share", "median µs", "mean µs", "10% to 90% of steps, µs", "what it is")
    rows = [
        (
            line.name,
            f"{line.percent:.1f}%",
            _microseconds(line.times.median),
            _microseconds(line.times.mean),
            _range(line.times),
            meanings[line.name],
        )
        for line in _part_lines(times)
    ]
    return _table(head, rows)


def _operations_table(operations: list[Operation]) -> str:
    shown = (replace(found, name=f"`{found.name}`") for found in operations if found.part not in OUTSIDE)
    return _table([field.name for field in fields(Operation)], map(astuple, shown))


def _kernel_sections(kernels: list[Kernel] | None) -> list[str]:
    if kernels is None:
        return []
    share = sum(kernel.share for kernel in kernels if kernel.tensor_cores)
    shown = kernels[:KERNELS_SHOWN]
    rows = [(f"`{found.kernel[:100]}`", f"{found.share:.1%}", NO_YES[found.tensor_cores]) for found in shown]
    return [
        "## Which kernels used tensor cores",
        f"Recognised by their names; {share:.1%} of the kernels' time was spent in those that did.",
        _table(("kernel", "share", "tensor cores"), rows),
    ]


def _gradients(gradients: GradientSizes) -> str:
    values = sum(gradients.exponents.values()) + gradients.zeros
    return (
        f"{values:,} gradient values in {gradients.steps:,} optimizer steps, unscaled: {gradients.zeros:,} are zero. "
        f"Of the others, without loss scaling, fp16 would flush {gradients.flushed_by_fp16:.2%} to zero and hold "
        f"{gradients.subnormal_in_fp16:.2%} with fewer bits than usual."
    )


def _facts(results: ProfileResults) -> dict[str, str]:
    profile, network = results.profile, results.settings.get("network") or results.settings["model"]
    batch_size = find(results.settings, "data.batch_size")
    sized = [] if batch_size is None else [f"batch_size {batch_size}"]
    asked = results.requested_precision
    requested = "" if asked in (None, profile.precision) else f" (requested: {asked})"
    return {
        "device": results.device,
        "precision": f"{profile.precision}{requested}",
        "setting": ", ".join([described_class(network), *sized, profile.optimizer]),
        "steps": f"{profile.steps:,}, after {profile.warmup:,} warm-up steps",
        "versions": join_versions(results.versions),
    }


def _marks_cost(times: StepTimes) -> str:
    marked, unmarked = (_microseconds(spread.median) for spread in (times.step, times.unmarked_step))
    return f"make the median step {times.marks_cost:.2f} times as long ({marked} µs; {unmarked} µs without)"


def _clock(kernels: list[Kernel] | None) -> str:
    if kernels is None:
        return "The times are the host's."
    return "The times are those of the CUDA stream, and include its waits for the host."


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}"


def _range(times: Spread) -> str:
    return f"{_microseconds(times.p10)} to {_microseconds(times.p90)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    return tables.markdown([[*head], *([str(value) for value in row] for row in rows)])
