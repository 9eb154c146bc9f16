"""`mnist-amp profile`: where the time of a training step goes, and which precision its operations run in."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError, RunError, warn
from mnist_amp.measuring import profile_report
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.measured_fit import MeasuringCLI
from mnist_amp.measuring.numerics import measure_numerics
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.measuring.precisions import PRECISIONS
from mnist_amp.measuring.profile_records import ProfileResults
from mnist_amp.measuring.step_profile import Amounts, measure_profile
from mnist_amp.number_types import NonNegativeInt, PositiveInt
from mnist_amp.runs import folders
from mnist_amp.training.precision import device_name, versions
from mnist_amp.wording import counted

GRADIENT_STEPS = 20
BUSY = 2  # the machine is busy if the slowest tenth of the steps take more than this many times the median


def profile(cli: MeasuringCLI, steps: PositiveInt = 200, warmup: NonNegativeInt = 20) -> Path:
    """Profile the first steps of a fit, and print and write the results.

    Args:
        cli: the command line
        steps: number of steps to time with marks between their parts, and again without marks
        warmup: number of steps before those

    Raises:
        RequestError: several steps per execution, or compiled ones, are requested.
        RunError: the fit ended before it was measured.
    """
    settings = cli.fit_settings()
    if not cli.is_foreign:
        _check_single_steps(settings["model"], cli.name)
    if settings.get("compile"):
        raise RequestError(
            f"compile is set, but {cli.name} measures the parts of a step, which are one then. Leave it out."
        )
    sys.stderr.write(
        f"mnist-amp: timing {counted(steps, 'step')} with marks and as many without, after "
        f"{counted(warmup, 'warm-up step')}\n"
    )
    measured, fit = measure_profile(settings, {}, Amounts(steps, warmup, GRADIENT_STEPS))
    results = ProfileResults(
        command=cli.command_line,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device_name(fit.trainer),
        versions=versions(),
        requested_precision=None if settings["trainer"]["plugins"] else settings["trainer"]["precision"],
        profile=measured,
        numerics=_numerics(settings, fit.trainer.strategy.root_device.type == "cuda"),
        settings=settings,
    )
    times = measured.times.step
    if times.p90 > BUSY * times.median or not 1 / BUSY < measured.times.marks_cost < BUSY:
        warn("some steps took much longer than most: the machine is busy with other work, so measure again.")
    try:
        folder = write(results, Path(settings["trainer"]["default_root_dir"] or "."))
    except (OSError, RequestError, RunError):
        print(profile_report.terminal(results, None), flush=True)
        raise
    print(profile_report.terminal(results, str(folder)), flush=True)
    return folder


def _check_single_steps(model: dict[str, Any], command: str) -> None:
    """Check that single steps are not excluded, and set them."""
    steps = model["steps_per_execution"]
    if steps not in (1, "auto"):
        raise RequestError(
            f"model.steps_per_execution is {steps}, but {command} measures the parts of single steps. Leave it at auto."
        )
    model["steps_per_execution"] = 1


def _numerics(settings: dict[str, Any], on_cuda: bool) -> Numerics | None:
    """Compare a step in half precision with float32; None, with a warning, if that is impossible."""
    names = ("bf16-mixed", "16-mixed" if on_cuda else "fp16-cpu")
    try:
        return run_isolated(measure_numerics, settings, {name: PRECISIONS[name] for name in names})
    except (RunError, RequestError) as error:
        warn(f"the numerics by layer are not measured: {error}")
        return None


def write(results: ProfileResults, root: Path) -> Path:
    """Write the results to a new folder, and return it; if that fails, the folder is removed."""
    with folders.transactional_run_dir(root, "profile") as folder:
        profile_report.write(results, folder)
    return folder


class ProfileCLI(MeasuringCLI):
    name = "profile"
    function = profile


run = ProfileCLI.run
