"""`mnist-amp compare`: what each precision does to time, memory and accuracy here, and why."""

import datetime
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from mnist_amp import signals
from mnist_amp.cli.arguments import environment_arguments, find, written
from mnist_amp.errors import MemoryRunError, RequestError, RunError
from mnist_amp.measuring import axes as comparison_axes
from mnist_amp.measuring import compare_report
from mnist_amp.measuring.compare_records import (
    TRAIN_LOSS,
    Cell,
    Comparison,
    Failure,
    FormerComparisonError,
    Inference,
    Metric,
    NotAComparisonError,
    Outcome,
    Setting,
    Speed,
    batch_axis,
)
from mnist_amp.measuring.compare_rows import verdict_setting
from mnist_amp.measuring.environment import Environment
from mnist_amp.measuring.fit_measurements import Trial, measure_score, measure_speed, measure_step, try_fit
from mnist_amp.measuring.inference_speed import measure_inference
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.measured_fit import MeasuringCLI, uncompiled
from mnist_amp.measuring.numerics import measure_numerics
from mnist_amp.measuring.precisions import PRECISIONS, check, usual
from mnist_amp.number_types import NonNegativeInt, PositiveFloat, PositiveInt
from mnist_amp.runs import folders
from mnist_amp.signals import Stopped
from mnist_amp.training.precision import versions
from mnist_amp.wording import counted, listed, nearest

RESULTS = "results.json"
WIDTH, BATCH_SIZE, ACCUMULATE = "network.hidden_dim", "data.batch_size", "trainer.accumulate_grad_batches"
STEPS_PER_EXECUTION = "model.steps_per_execution"
# default axes of this project's module, by whether there is a CUDA device
AXES: dict[bool, dict[str, list[int]]] = {
    False: {WIDTH: [128, 512, 2048], BATCH_SIZE: [64, 512]},
    True: {WIDTH: [128, 512, 2048, 8192], BATCH_SIZE: [64, 512, 4096]},
}
# words in the names of metrics, by what is better; a loss is one, whatever it is of
MODES: dict[Literal["min", "max"], set[str]] = {
    "min": {"loss", "error", "perplexity", "ppl", "mse", "mae", "mape", "rmse", "nll"},
    "max": {"acc", "accuracy", "f", "auc", "auroc", "iou", "score", "recall", "psnr", "ssim", "bleu"},
}


def compare(
    cli: "CompareCLI",
    precisions: list[str] | None = None,
    axes: dict[str, list[Any]] | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    seeds: NonNegativeInt = 3,
    rounds: PositiveInt = 5,
    seconds: PositiveFloat = 1.0,
    resume: str | None = None,
) -> Path:
    """Compare precisions, and write the results to `lightning_logs/compare/version_N`.

    Args:
        cli: the command line
        precisions: Lightning's precisions, tf32 (32-true with TF32) and fp16-cpu (fp16 with a GradScaler on a CPU, slow
            by design); plugins is the one that trainer.plugins sets; the others are compared with the first
        axes: options of fit, each with the values at which time and memory are measured, besides the run's own value,
            as in '{network.width: [16, 64], data.batch_size: [64, 512]}'; by default network.hidden_dim, if the
            network has it, and data.batch_size; with --model, only the run's own setting is measured by default
        metric: the metric that shows whether a precision trains as well, as the module logs it; by default
            val_accuracy, or with --model val_loss if it is logged; without validation, a metric of training
        mode: whether a small value of the metric is better (min) or a large one (max); by default from its name
        seeds: number of complete fits of each precision, with the run's own settings, to measure the metric; their
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
        comparison = _begin(cli, precisions, axes, metric, mode, seeds=seeds, rounds=rounds, seconds=seconds)
    else:
        cli.check_resume()
        folder = _find_folder(resume, root)
        comparison = _load(folder / RESULTS)
        if _next_cell(comparison) is None:
            sys.stderr.write(f"mnist-amp: {folder} is complete, so nothing is measured\n")
    comparison, folder = _measure_all(comparison, folder, root)
    print(compare_report.write(comparison, folder), flush=True)
    return folder


def _begin(
    cli: "CompareCLI",
    precisions: list[str] | None,
    axes: dict[str, list[Any]] | None,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    **amounts: Any,
) -> Comparison:
    """Return a comparison without measurements; `amounts` are the seeds, rounds and seconds."""
    config = cli.fit_settings()
    cuda = config["trainer"]["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    precisions = usual(cuda) if precisions is None else precisions
    check(precisions, cuda, bool(config["trainer"]["plugins"]))
    if axes is None:
        axes = _usual_axes(cli, config, cuda)
    elif cli.is_foreign and isinstance(find(config, BATCH_SIZE), int):
        axes = {BATCH_SIZE: [], **axes}  # or smaller batches could not be measured where the memory ends
    axes, own = _checked_axes(cli, axes, config)
    if not cli.is_foreign and {1} != {*axes.get(ACCUMULATE, []), config["trainer"]["accumulate_grad_batches"]}:
        config["model"]["steps_per_execution"] = 1  # the two can't be combined
    return Comparison(
        command=cli.command_line,
        date=datetime.date.today().isoformat(),
        versions=versions(),
        own=own,
        precisions=precisions,
        axes=axes,
        metric=_choose_metric(config, PRECISIONS[precisions[0]], metric, mode, cli.is_foreign),
        epochs=config["trainer"]["max_epochs"],
        config=config,
        cells=[],
        **amounts,
    )


def _choose_metric(
    config: dict[str, Any],
    baseline: Mapping[str, Any],
    name: str | None,
    mode: Literal["min", "max"] | None,
    is_foreign: bool,
) -> Metric:
    """Return the metric of the comparison; a fit on one batch shows which the module logs.

    Raises:
        RequestError: the module does not log it, or its mode is not known.
        RunError: the fit fails.
    """
    if name is None and not is_foreign:
        validates = config["data"]["val_size"] != 0 and config["trainer"]["limit_val_batches"] != 0
        return Metric("val_accuracy" if validates else "train_accuracy", mode or "max")
    trial = _trial(config, baseline)
    logged = trial.metrics
    if name is None:
        validated = "val_loss" if "val_loss" in trial.validation else next(iter(trial.validation), None)
        name = validated or (TRAIN_LOSS if trial.has_loss else next(iter(logged), TRAIN_LOSS))
    elif name not in logged:
        known = f"It logs {listed(logged)}." if logged else "It logs no metric with self.log."
        raise RequestError(f"metric is {name}, which the module does not log{nearest(name, logged)}. {known}")
    return Metric(name, mode or _mode(name))


def _mode(metric: str) -> Literal["min", "max"]:
    """Return whether a small or a large value of a metric is better, by its name.

    Raises:
        RequestError: the name does not tell it.
    """
    words = set(re.split(r"[^a-z]+", metric.lower()))
    found = next((mode for mode, known in MODES.items() if words & known), None)
    if found is None:
        raise RequestError(f"is a small or a large {metric} better? Give --mode min or --mode max.")
    return found


def _trial(config: dict[str, Any], baseline: Mapping[str, Any]) -> Trial:
    """Return the result of a fit on one batch, which is halved until it fits in the memory."""
    size = find(config, BATCH_SIZE)
    while True:
        sized = {} if size is None else {BATCH_SIZE: size}
        try:
            return run_isolated(try_fit, config, {**baseline, **sized}, warns=True)
        except MemoryRunError:
            if not isinstance(size, int) or size == 1:
                raise
            size //= 2


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
        if cli.is_foreign:
            return cli.plain(config)
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


def _usual_axes(cli: "CompareCLI", config: dict[str, Any], cuda: bool) -> dict[str, list[Any]]:
    """Return the default axes: without a width that the network has not, or batches that are too large for the data."""
    if cli.is_foreign:
        return {BATCH_SIZE: []} if isinstance(find(config, BATCH_SIZE), int) else {}
    has_width, images = isinstance(find(config, WIDTH), int), cli.train_size()
    widths: dict[str, list[Any]] = {WIDTH: AXES[cuda][WIDTH]} if has_width else {}
    return {**widths, BATCH_SIZE: [size for size in AXES[cuda][BATCH_SIZE] if size <= images]}


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
        raise RequestError(f"{path} was written by another version of mnist-amp; start a new comparison.") from error
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
        with signals.keyboard_interrupts(), _Progress() as progress:
            while (cell := _next_cell(comparison)) is not None:
                progress.show(comparison)
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
    settings = [*comparison_axes.settings(comparison.axes), *_smaller_batches(comparison)]
    precisions = comparison.precisions
    for turn in range(comparison.rounds):
        for setting, precision in itertools.product(settings, precisions):
            yield Cell("speed", precision, setting, turn)
            if turn == 0:
                yield Cell("profile", precision, setting, 0)
    own = verdict_setting(comparison)
    yield Cell("numerics", comparison.baseline, own, 0)
    first = comparison.config["seed_everything"]
    for seed, precision in itertools.product(range(first, first + comparison.seeds), precisions):
        yield Cell("score", precision, own, seed)
    yield Cell("inference", comparison.baseline, own, first)


def _smaller_batches(comparison: Comparison) -> list[Setting]:
    """Return the settings to try because the memory was too small: half of the batch, down to the next planned size."""
    found: list[Setting] = []
    for cell, failure in comparison.failures("speed"):
        axis = batch_axis(comparison.axes)
        if axis is None or not failure.out_of_memory or not isinstance(cell.setting[axis], int):
            continue
        half = cell.setting[axis] // 2
        planned = [size for size in comparison.axes[axis] if half <= size < cell.setting[axis]]
        if half > 0 and not planned:
            found.append(Setting.of({**cell.setting.as_dict(), axis: half}))
    return list(dict.fromkeys(found))


def _next_cell(comparison: Comparison) -> Cell | None:
    return next((cell for cell in _plan(comparison) if not _is_needless(cell, comparison)), None)


def _is_needless(cell: Cell, comparison: Comparison) -> bool:
    """Whether a cell is measured already, has failed at this setting, or would repeat another precision."""
    failed = any(
        (known.precision, known.setting) == (cell.precision, cell.setting) and known.kind in ("speed", cell.kind)
        for known, _ in comparison.outcomes(Failure)
    )
    done = any(measurement.cell == cell for measurement in comparison.cells)
    return done or failed or comparison.duplicate_of(cell.precision) is not None


def _measure(cell: Cell, comparison: Comparison) -> tuple[Outcome, Environment | None]:
    overrides = {
        **PRECISIONS[cell.precision],
        **comparison_axes.options(cell.setting, comparison.own, comparison.config),
        "seed_everything": cell.number if cell.kind in ("score", "inference") else comparison.config["seed_everything"],
    }
    try:
        outcome, environment = _measured(cell, comparison, overrides)
    except (RunError, RequestError) as error:
        if isinstance(error, RequestError) and not comparison.outcomes(Speed):
            raise  # the request is wrong, rather than one of its settings
        return Failure(str(error), isinstance(error, MemoryRunError)), None
    if environment is not None and comparison.device not in ("", environment.device):
        raise RequestError(
            f"this device is {environment.device}, but the comparison was made on {comparison.device}; "
            "start a new comparison."
        )
    return outcome, environment


def _measured(cell: Cell, comparison: Comparison, overrides: dict[str, Any]) -> tuple[Outcome, Environment | None]:
    config = comparison.config
    if cell.kind == "speed":
        return run_isolated(measure_speed, config, overrides, comparison.seconds)
    if cell.kind == "profile":
        single = {STEPS_PER_EXECUTION: 1} if find(config, STEPS_PER_EXECUTION) else {}
        return run_isolated(measure_step, config, {**overrides, **single, **uncompiled(config)}, comparison.seconds)
    if cell.kind == "numerics":
        options = {**comparison_axes.options(cell.setting, comparison.own, config), **uncompiled(config)}
        found = {name: {**own, **options} for name, own in _numerics_options(comparison).items()}
        return run_isolated(measure_numerics, config, found), None
    if cell.kind == "inference":
        trained, metric = comparison.seeds > 0, comparison.metric.name
        overrides = {**overrides, **uncompiled(config)}
        results = run_isolated(measure_inference, config, overrides, comparison.seconds / 2, trained, metric)
        return Inference(results), None
    return run_isolated(measure_score, config, overrides, comparison.metric.name)


def _numerics_options(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the precisions whose numerics are compared with float32, with their options: also fp16 on a CPU."""
    distinct = [name for name in comparison.precisions if comparison.duplicate_of(name) is None]
    others = [name for name in distinct if name != "32-true"]
    effective = {cell.precision: speed.effective for cell, speed in comparison.outcomes(Speed)}
    has_fp16 = any(effective.get(name, name).startswith("16") for name in others)
    if "CPU" in comparison.device and not has_fp16:
        others.append("fp16-cpu")
    return {name: PRECISIONS[name] for name in others}


class _Progress:
    """Shows how many cells are measured: a bar in a terminal, else a line for each tenth."""

    def __init__(self) -> None:
        self.bar = tqdm(desc="measuring", disable=not sys.stderr.isatty(), leave=False)
        self.tenth = -1

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, comparison: Comparison) -> None:
        done = len(comparison.cells)
        self.bar.total = total = done + sum(1 for cell in _plan(comparison) if not _is_needless(cell, comparison))
        self.bar.update(done - self.bar.n)
        if self.bar.disable and 10 * done // total > self.tenth:
            self.tenth = 10 * done // total
            sys.stderr.write(f"mnist-amp: {done} of {counted(total, 'measurement')} are done\n")


class CompareCLI(MeasuringCLI):
    name = "compare"
    function = compare

    def __init__(self, args: list[str]) -> None:
        variables = {argument for _, argument in environment_arguments(os.environ)}
        self.options = [name for name, _ in written(arg for arg in args if arg not in variables)]
        super().__init__(args)

    def check_resume(self) -> None:
        """Refuse options that a resumed comparison, which keeps its own settings, would ignore.

        Raises:
            RequestError: the message names the first.
        """
        others = [name for name in self.options if name not in ("resume", "trainer.default_root_dir")]
        if others:
            raise RequestError(
                f"resume keeps the settings of the comparison, so {others[0]} has no effect. Leave it out."
            )

    def add_command_arguments(self) -> None:
        super().add_command_arguments()
        if not self.is_foreign:
            # to measure the precision rather than the loop around a step
            self.subcommand_parsers["fit"].set_defaults({STEPS_PER_EXECUTION: 50})


run = CompareCLI.run
