"""`mnist-amp compare`: what each precision does to time, memory and accuracy here."""

import datetime
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mnist_amp import signals
from mnist_amp.cli.arguments import find
from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring import axes as comparison_axes
from mnist_amp.measuring import compare_report
from mnist_amp.measuring.compare_records import (
    Accuracy,
    Cell,
    Comparison,
    Failure,
    FormerComparisonError,
    NotAComparisonError,
    Outcome,
    Setting,
    Speed,
)
from mnist_amp.measuring.environment import Environment
from mnist_amp.measuring.fit_measurements import measure_accuracy, measure_speed
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.measured_fit import MeasuringCLI
from mnist_amp.number_types import NonNegativeInt, PositiveFloat, PositiveInt
from mnist_amp.runs import folders
from mnist_amp.signals import Stopped
from mnist_amp.training.precision import versions
from mnist_amp.wording import counted

RESULTS = "results.json"
FP16_CPU = {
    "class_path": "lightning.pytorch.plugins.MixedPrecision",
    "init_args": {"precision": "16-mixed", "device": "cpu"},
}
# options of fit, by the name of the precision in a comparison
PRECISIONS: dict[str, dict[str, Any]] = {
    **{
        name: {"trainer.precision": name, "trainer.plugins": None, "matmul_precision": "highest"}
        for name in ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
    },
    "tf32": {"trainer.precision": "32-true", "trainer.plugins": None, "matmul_precision": "high"},
    "fp16-cpu": {"trainer.precision": None, "trainer.plugins": FP16_CPU},
}
WIDTH, BATCH_SIZE, ACCUMULATE = "network.hidden_dim", "data.batch_size", "trainer.accumulate_grad_batches"
# default precisions and axes, by whether there is a CUDA device
DEFAULTS: dict[bool, tuple[list[str], dict[str, list[int]]]] = {
    False: (["32-true", "bf16-mixed", "16-mixed"], {WIDTH: [128, 512, 2048], BATCH_SIZE: [64, 512]}),
    True: (
        ["32-true", "tf32", "bf16-mixed", "16-mixed"],
        {WIDTH: [128, 512, 2048, 8192], BATCH_SIZE: [64, 512, 4096]},
    ),
}


def compare(
    cli: "CompareCLI",
    precisions: list[str] | None = None,
    axes: dict[str, list[Any]] | None = None,
    seeds: NonNegativeInt = 3,
    rounds: PositiveInt = 5,
    seconds: PositiveFloat = 1.0,
    resume: str | None = None,
) -> None:
    """Compare precisions, and write the results to `lightning_logs/compare/version_N`.

    Args:
        cli: the command line
        precisions: Lightning's precisions, tf32 (32-true with TF32) and fp16-cpu (fp16 with a GradScaler on a CPU, slow
            by design); the others are compared with the first
        axes: options of fit, each with the values at which time and memory are measured, besides the run's own value,
            as in '{network.width: [16, 64], data.batch_size: [64, 512]}'; by default network.hidden_dim, if the
            network has it, and data.batch_size
        seeds: number of complete fits of each precision, with the run's own settings, to measure the accuracy; their
            seeds are seed_everything and the numbers after it
        rounds: number of measurements of each time; the precisions take turns
        seconds: duration of each measurement of a time
        resume: folder of a comparison that was stopped, or last for the newest; it keeps its own settings

    Raises:
        RequestError: the comparison can't be made, or not resumed.
        RunError: all measurements failed.
        Stopped: a signal came; what is measured so far is saved.
    """
    root = Path(cli.config["fit"].trainer.default_root_dir or ".")
    if resume is None:
        folder = None
        comparison = _begin(cli, precisions, axes, seeds=seeds, rounds=rounds, seconds=seconds)
    else:
        folder = _find_folder(resume, root)
        comparison = _load(folder / RESULTS)
    comparison, folder = _measure_all(comparison, folder, root)
    print(compare_report.write(comparison, folder), flush=True)


def _begin(
    cli: "CompareCLI", precisions: list[str] | None, axes: dict[str, list[Any]] | None, **amounts: Any
) -> Comparison:
    """Return a comparison without measurements; `amounts` are the seeds, rounds and seconds."""
    config = cli.fit_settings()
    cuda = config["trainer"]["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    usual_precisions, usual_axes = DEFAULTS[cuda]
    precisions = usual_precisions if precisions is None else precisions
    _check_precisions(precisions, cuda)
    if axes is None:
        axes = _usual_axes(usual_axes, config, cli.train_size())
    axes, own = _checked_axes(cli, axes, config)
    if {1} != {*axes.get(ACCUMULATE, []), config["trainer"]["accumulate_grad_batches"]}:
        config["model"]["steps_per_execution"] = 1  # the two can't be combined
    return Comparison(
        command=cli.command_line,
        date=datetime.date.today().isoformat(),
        versions=versions(),
        own=own,
        precisions=precisions,
        axes=axes,
        epochs=config["trainer"]["max_epochs"],
        config=config,
        cells=[],
        **amounts,
    )


def _checked_axes(
    cli: "CompareCLI", axes: dict[str, list[Any]], config: dict[str, Any]
) -> tuple[dict[str, list[Any]], Setting]:
    """Return the axes with the values of the run, and the run's own setting, after a check of all settings."""
    parse = _parser(cli)
    parse({})
    comparison_axes.check_names(axes, cli.own)
    axes, own = comparison_axes.complete(axes, config, parse)
    comparison_axes.check(axes, own, config, parse)
    return axes, own


def _parser(cli: "CompareCLI") -> comparison_axes.Parse:
    """Return a function that parses the settings of a fit with some options, and refuses batches without images."""
    sizes: dict[str, int] = {}  # by the settings of the data

    def parse(options: Mapping[str, Any]) -> dict[str, Any]:
        config = cli.parse_with(options)
        data = {**config.data.as_dict(), "batch_size": 1}
        if str(data) not in sizes:
            sizes[str(data)] = cli.train_size(data)
        images = sizes[str(data)]
        if config.data.batch_size > images:
            raise RequestError(
                f"data.batch_size is {config.data.batch_size}, but there are {counted(images, 'image')} to train on."
            )
        return cli.plain(config)

    return parse


def _usual_axes(usual: dict[str, list[int]], config: dict[str, Any], images: int) -> dict[str, list[Any]]:
    """Return the default axes of a network and a data set: without a width that it has not, or batches too large."""
    has_width = isinstance(find(config, WIDTH), int)
    widths: dict[str, list[Any]] = {WIDTH: usual[WIDTH]} if has_width else {}
    return {**widths, BATCH_SIZE: [size for size in usual[BATCH_SIZE] if size <= images]}


def _check_precisions(precisions: list[str], cuda: bool) -> None:
    for name in precisions:
        if name not in PRECISIONS:
            raise RequestError(f"precisions has {name}; it takes {', '.join(PRECISIONS)}.")
    if len(set(precisions)) < max(2, len(precisions)):
        raise RequestError("precisions needs at least two that differ.")
    if cuda and "fp16-cpu" in precisions:
        raise RequestError("precisions has fp16-cpu, but the fits use a GPU. Add --trainer.accelerator cpu.")


def _find_folder(resume: str, root: Path) -> Path:
    if resume != "last":
        return Path(resume)
    folder = next(folders.run_dirs(root, "compare"), None)
    if folder is None:
        raise RequestError(
            f"there is no comparison under {folders.logs_dir(root) / 'compare'}. Start one: mnist-amp compare"
        )
    return folder


def _load(path: Path) -> Comparison:
    try:
        comparison = Comparison.load(path)
    except FormerComparisonError as error:
        raise RequestError(
            f"{path} is of a former version, with hidden_dims and batch_sizes instead of axes; start a new comparison."
        ) from error
    except NotAComparisonError as error:
        raise RequestError(f"{path} is not the results.json of a comparison.") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"there is no comparison to resume at {path}: {error}.") from error
    if comparison.versions != versions():
        raise RequestError(f"{path} was measured with other versions ({comparison.versions}); start a new comparison.")
    return comparison


def _measure_all(comparison: Comparison, folder: Path | None, root: Path) -> tuple[Comparison, Path]:
    """Measure what is not measured yet, and save after each measurement.

    Args:
        comparison: what to measure, and what is measured.
        folder: where to save; None to create one after the first measurement, so that a wrong request leaves none.
        root: where to create it.
    """
    try:
        with signals.keyboard_interrupts():
            for cell in tqdm(list(_plan(comparison)), desc="measuring", disable=not sys.stderr.isatty(), leave=False):
                if not _is_needless(cell, comparison):
                    comparison = comparison.with_measurement(cell, *_measure(cell, comparison))
                    folder = folder or folders.create_run_dir(root, "compare")
                    comparison.save(folder / RESULTS)
    except KeyboardInterrupt as interrupt:
        raise Stopped(interrupt.args[0], _resume_hint(comparison, folder)) from None
    assert folder is not None  # there is at least one cell
    failures = comparison.outcomes(Failure)
    if len(failures) == len(comparison.cells):
        raise RunError(f"nothing could be measured: {failures[0][1].error}")
    return comparison, folder


def _resume_hint(comparison: Comparison, folder: Path | None) -> str:
    if folder is None:
        return "before anything was measured."
    saved = counted(len(comparison.cells), "measurement")
    return f"after {saved}, saved in {folder}. Resume with: mnist-amp compare --resume {shlex.quote(str(folder))}"


def _plan(comparison: Comparison) -> Iterator[Cell]:
    """Yield all cells: those that are compared come one after the other, and their rounds are far apart."""
    settings, precisions = list(comparison_axes.settings(comparison.axes)), comparison.precisions
    for turn in range(comparison.rounds):
        for setting, precision in itertools.product(settings, precisions):
            yield Cell("speed", precision, setting, turn)
    first = comparison.config["seed_everything"]
    for seed, precision in itertools.product(range(first, first + comparison.seeds), precisions):
        yield Cell("accuracy", precision, comparison.own, seed)


def _is_needless(cell: Cell, comparison: Comparison) -> bool:
    """Whether a cell is measured already, has failed at this setting, or would repeat another precision."""
    failed = any(
        (known.precision, known.setting) == (cell.precision, cell.setting) for known, _ in comparison.outcomes(Failure)
    )
    done = any(measurement.cell == cell for measurement in comparison.cells)
    return done or failed or comparison.duplicate_of(cell.precision) is not None


def _measure(cell: Cell, comparison: Comparison) -> tuple[Outcome, Environment | None]:
    overrides = {
        **PRECISIONS[cell.precision],
        **comparison_axes.options(cell.setting, comparison.own, comparison.config),
        "seed_everything": cell.number if cell.kind == "accuracy" else comparison.config["seed_everything"],
    }
    outcome: Speed | Accuracy
    try:
        if cell.kind == "speed":
            outcome, environment = run_isolated(measure_speed, comparison.config, overrides, comparison.seconds)
        else:
            outcome, environment = run_isolated(measure_accuracy, comparison.config, overrides)
    except (RunError, RequestError) as error:
        if isinstance(error, RequestError) and not comparison.outcomes(Speed):
            raise  # the request is wrong, rather than one of its settings
        return Failure(str(error)), None
    if comparison.device not in ("", environment.device):
        raise RequestError(
            f"this device is {environment.device}, but the comparison was made on {comparison.device}; "
            "start a new comparison."
        )
    return outcome, environment


class CompareCLI(MeasuringCLI):
    name = "compare"
    function = compare

    def add_command_arguments(self) -> None:
        super().add_command_arguments()
        # to measure the precision rather than the loop around a step
        self.subcommand_parsers["fit"].set_defaults({"model.steps_per_execution": 50})


run = CompareCLI.run
