"""The printed table and the report of `mnist-amp profile`, from its records; no torch here.

`document` has the sections in their order: another section is another line there.
"""

import functools
import math
from dataclasses import astuple, fields
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from mnist_amp.cli.arguments import find
from mnist_amp.measuring import numerics_report
from mnist_amp.measuring.environment import join_versions, measured_on
from mnist_amp.measuring.profile_records import (
    GradientSizes,
    Kernel,
    Layer,
    Operation,
    Profile,
    ProfileResults,
    Spread,
    StepTimes,
)
from mnist_amp.measuring.reasons import findings
from mnist_amp.reporting import charts, tables
from mnist_amp.reporting.document import (
    Block,
    Bullets,
    Chart,
    Code,
    Document,
    Heading,
    Inline,
    Pie,
    Table,
    Text,
    to_markdown,
)
from mnist_amp.reporting.report_files import Charts, described_files, write_report
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
CHART, GRADIENTS = "profile.png", "gradients.png"
GRADIENTS_TITLE = "Gradients by magnitude, against the ranges of fp16 and bfloat16"
WIDTH = 100  # of a terminal
SETTING = 170  # characters of the setting there, about two lines
KERNELS_SHOWN = 15
NO_YES = ("no", "yes")
SHORT = {"waiting for data": "waiting", "matrix products": "products", "other operations": "others"}  # for one line


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
    found = {name: shorten(text, SETTING, placeholder=" ...") for name, text in _facts(results).items()}
    del found["versions"]  # they would take two lines of a screen that has none to spare
    found["marks"] = _marks_cost(times)
    shares = [(SHORT.get(name, name), share) for name, share in results.profile.work.items()]
    found["work"] = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    if results.numerics is not None and (risks := numerics_report.sentences(results.numerics)):
        found["numerics"] = shorten(risks[0], SETTING, placeholder=" ...")
    if folder is not None:
        found["files"] = described_files(folder, len(_charts(results)))
    return "\n".join(["", head, *lines, "", tables.facts(found, WIDTH)])


def document(results: ProfileResults) -> Document:
    """Return the report: the parts of a step, then a section for each other record, then the environment."""
    return Document(
        "Where the time of a training step goes",
        [
            Text(f"Measured on {results.date} by ", Code(results.command)),
            *_times(results.profile),
            Heading("Work of a step"),
            Bullets([Text(sentence) for sentence in findings(results.profile)]),
            *_layers(results.profile.layers),
            *_operations(results.profile.operations),
            *_kernels(results.profile.kernels),
            *_gradients(results.profile.gradients),
            *([] if results.numerics is None else numerics_report.sections(results.numerics)),
            *measured_on(_facts(results)),
        ],
    )


def markdown(results: ProfileResults) -> str:
    """Return the content of `report.md`."""
    return to_markdown(document(results))


def write(results: ProfileResults, folder: Path) -> None:
    """Write `results.json`, `report.md`, `report.html` and the charts into the folder.

    Raises:
        RunError: a file can't be written.
    """
    results.save(folder / "results.json")
    write_report(document(results), _charts(results), folder)


def _charts(results: ProfileResults) -> Charts:
    shares = {name: spread.share for name, spread in results.profile.times.parts.items()}
    exponents = results.profile.gradients.exponents
    return {
        CHART: functools.partial(charts.shares, shares),
        GRADIENTS: functools.partial(charts.gradient_histogram, exponents),
    }


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


def _times(profile: Profile) -> list[Block]:
    times = profile.times
    percents = {line.name: line.percent for line in _part_lines(times)[:-1]}
    return [
        Pie(f"A step of {_microseconds(times.step.mean)} µs, in percent", percents, CHART),
        _parts_table(times, profile.fused),
        Text(
            f"{_clock(profile.kernels)} The marks {_marks_cost(times)}. "
            "Shares are of the mean, so they add up to the step."
        ),
    ]


def _parts_table(times: StepTimes, fused: bool) -> Table:
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
    return Table([head, *rows], "Parts of a step")


def _layers(layers: list[Layer]) -> list[Block]:
    rows = [tuple(map(str, astuple(layer))) for layer in layers]
    return [Heading("Which precision the layers ran in"), Table([_names(Layer), *rows], "Layers")]


def _operations(operations: list[Operation]) -> list[Block]:
    shown = [found for found in operations if found.part not in OUTSIDE]
    rows: list[tuple[Inline, ...]] = [
        (found.part, Code(found.name), found.inputs, found.output, str(found.count)) for found in shown
    ]
    return [
        Heading("Which precision the operations ran in"),
        Text("Recorded from one optimizer step, as torch dispatched it; ", Code("_to_copy"), " is a cast."),
        Table([_names(Operation), *rows], "Operations"),
    ]


def _names(record: type[Layer] | type[Operation]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(record))


def _kernels(kernels: list[Kernel] | None) -> list[Block]:
    if kernels is None:
        return []
    share = sum(kernel.share for kernel in kernels if kernel.tensor_cores)
    rows: list[tuple[Inline, ...]] = [
        (Code(found.kernel[:100]), f"{found.share:.1%}", NO_YES[found.tensor_cores])
        for found in kernels[:KERNELS_SHOWN]
    ]
    return [
        Heading("Which kernels used tensor cores"),
        Text(f"Recognised by their names; {share:.1%} of the kernels' time was spent in those that did."),
        Table([("kernel", "share", "tensor cores"), *rows], "Kernels"),
    ]


def _gradients(gradients: GradientSizes) -> list[Block]:
    values = sum(gradients.exponents.values()) + gradients.zeros
    text = (
        f"{values:,} gradient values in {gradients.steps:,} optimizer steps, unscaled: {gradients.zeros:,} are zero. "
        f"Of the others, without loss scaling, fp16 would flush {gradients.flushed_by_fp16:.2%} to zero and hold "
        f"{gradients.subnormal_in_fp16:.2%} with fewer bits than usual."
    )
    return [Heading("How large the gradients are"), Text(text), Chart(GRADIENTS_TITLE, GRADIENTS)]


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
