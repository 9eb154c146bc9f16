"""`mnist-amp compare`: what each precision does to time, memory and accuracy here."""

import datetime
import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from mnist_amp import signals
from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring import compare_report, measure
from mnist_amp.number_types import NonNegativeInt, PositiveFloat, PositiveInt, PositiveInt32
from mnist_amp.runs import folders
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.signals import Stopped
from mnist_amp.training.precision import versions
from mnist_amp.wording import counted

RESULTS = "results.json"
FP16_CPU = {
    "class_path": "lightning.pytorch.plugins.MixedPrecision",
    "init_args": {"precision": "16-mixed", "device": "cpu"},
}
# settings of a fit, by what the comparison calls them
PRECISIONS: dict[str, dict[str, Any]] = {
    **{
        name: {"trainer.precision": name, "trainer.plugins": None, "matmul_precision": "highest"}
        for name in ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
    },
    "tf32": {"trainer.precision": "32-true", "trainer.plugins": None, "matmul_precision": "high"},
    "fp16-cpu": {"trainer.precision": None, "trainer.plugins": FP16_CPU},
}
# precisions, widths and batch sizes where nothing else is said, by whether there is a CUDA device
DEFAULTS: dict[bool, tuple[list[str], list[int], list[int]]] = {
    False: (["32-true", "bf16-mixed", "16-mixed"], [128, 512, 2048], [64, 512]),
    True: (["32-true", "tf32", "bf16-mixed", "16-mixed"], [128, 512, 2048, 8192], [64, 512, 4096]),
}


class Cell(NamedTuple):
    """One measurement: `kind` is `speed` or `accuracy`, `number` the round or the seed."""

    kind: str
    precision: str
    hidden_dim: int
    batch_size: int
    number: int


def compare(
    cli: "CompareCLI",
    precisions: list[str] | None = None,
    hidden_dims: list[PositiveInt32] | None = None,
    batch_sizes: list[PositiveInt] | None = None,
    seeds: NonNegativeInt = 3,
    rounds: PositiveInt = 5,
    seconds: PositiveFloat = 1.0,
    resume: str | None = None,
) -> None:
    """Compare precisions, and write what came of it to `lightning_logs/compare/version_N`.

    Args:
        cli: the command line
        precisions: Lightning's, and tf32 (32-true with TF32) and fp16-cpu (fp16 with a GradScaler on a CPU, slow by
            design); the first is what the others are compared with
        hidden_dims: widths to measure time and memory at, beside model.hidden_dim
        batch_sizes: batch sizes to measure them at, beside data.batch_size
        seeds: how many seeds to train with in full, from seed_everything on, for the accuracy at the fit's own width
            and batch size; 0 for none
        rounds: how often to measure each time, in turns
        seconds: how long to measure a time in each round
        resume: folder of a comparison that was stopped, or last; it goes on with its own settings

    Raises:
        RequestError: an axis has values that there are none of.
        Stopped: by a signal; what was measured is kept.
    """
    root = Path(cli.config["fit"].trainer.default_root_dir or ".")
    if resume is None:
        axes = {"precisions": precisions, "hidden_dims": hidden_dims, "batch_sizes": batch_sizes}
        results = _begin(cli, axes, {"seeds": seeds, "rounds": rounds, "seconds": seconds})
        folder = None
    else:
        folder = _folder(resume, root)
        results = _load(folder / RESULTS)
    folder = _measure_all(results, folder, root)
    print(compare_report.write(results, folder), flush=True)


def _begin(cli: "CompareCLI", axes: dict[str, Any], amounts: dict[str, Any]) -> dict[str, Any]:
    config = cli.fit_settings()
    cuda = config["trainer"]["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    own = {"hidden_dim": config["model"]["hidden_dim"], "batch_size": config["data"]["batch_size"]}
    usual = dict(zip(axes, DEFAULTS[cuda], strict=True))
    chosen: dict[str, Any] = {name: usual[name] if axes[name] is None else axes[name] for name in axes}
    for name, value in (("hidden_dims", own["hidden_dim"]), ("batch_sizes", own["batch_size"])):
        chosen[name] = sorted({*chosen[name], value})
    _check(chosen, cli.train_size())
    if cuda and "fp16-cpu" in chosen["precisions"]:
        raise RequestError(
            "precisions has fp16-cpu, and there is a GPU. Leave it out, or add --trainer.accelerator cpu."
        )
    if config["trainer"]["accumulate_grad_batches"] != 1:
        config["model"]["steps_per_execution"] = 1  # they do not go together
    return {
        "command": cli.command_line,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "own": own,
        **chosen,
        **amounts,
        "epochs": config["trainer"]["max_epochs"],
        "config": config,
        "cells": [],
    }


def _check(axes: dict[str, Any], images: int) -> None:
    for name in axes["precisions"]:
        if name not in PRECISIONS:
            raise RequestError(f"precisions has {name}; it takes {', '.join(PRECISIONS)}.")
    if len(set(axes["precisions"])) < max(2, len(axes["precisions"])):
        raise RequestError("precisions needs at least two that differ.")
    if max(axes["batch_sizes"]) > images:
        raise RequestError(f"batch_sizes has {max(axes['batch_sizes'])}; there are {images:,} images to train on.")


def _folder(resume: str, root: Path) -> Path:
    if resume != "last":
        return Path(resume)
    folder = next(folders.run_dirs(root, "compare"), None)
    if folder is None:
        raise RequestError(
            f"there is no comparison under {folders.logs_dir(root) / 'compare'}. Start one: mnist-amp compare"
        )
    return folder


def _load(path: Path) -> dict[str, Any]:
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {"precisions", "own", "config", "cells", "versions"} <= set(results)
    except (OSError, ValueError) as error:
        raise RequestError(f"there is no comparison to go on with at {path}: {error}.") from error
    if not known:
        raise RequestError(f"{path} holds no comparison.")
    if results["versions"] != versions():
        raise RequestError(f"{path} was measured with other versions ({results['versions']}); start a new comparison.")
    return results


def _measure_all(results: dict[str, Any], folder: Path | None, root: Path) -> Path:
    """Measure what is not yet measured, and keep each cell as it comes; returns the folder that they are in."""
    try:
        with signals.keyboard_interrupts():
            for cell in tqdm(list(_plan(results)), desc="measuring", disable=not sys.stderr.isatty(), leave=False):
                if not _is_needless(cell, results):
                    results["cells"].append({**cell._asdict(), **_measured(cell, results)})
                    folder = folder or folders.create_run_dir(root, "compare")  # a wrong request has left none
                    _save(results, folder)
    except KeyboardInterrupt as interrupt:
        raise Stopped(interrupt.args[0], _resume_hint(results, folder)) from None
    assert folder is not None  # there is at least one cell
    if not any("effective" in cell for cell in results["cells"]):
        raise RunError(f"nothing could be measured: {results['cells'][0]['error']}")
    return folder


def _resume_hint(results: dict[str, Any], folder: Path | None) -> str:
    if folder is None:
        return "before anything was measured."
    what = counted(len(results["cells"]), "measurement")
    return f"after {what}, which {folder} keeps. Go on with: mnist-amp compare --resume {shlex.quote(str(folder))}"


def _plan(results: dict[str, Any]) -> Iterator[Cell]:
    """Yield all measurements, those that are compared one right after the other, and their rounds far apart."""
    widths, batches, precisions = results["hidden_dims"], results["batch_sizes"], results["precisions"]
    for turn in range(results["rounds"]):
        for width, batch, precision in itertools.product(widths, batches, precisions):
            yield Cell("speed", precision, width, batch, turn)
    own, first = results["own"], results["config"]["seed_everything"]
    for seed, precision in itertools.product(range(first, first + results["seeds"]), precisions):
        yield Cell("accuracy", precision, own["hidden_dim"], own["batch_size"], seed)


def _is_needless(cell: Cell, results: dict[str, Any]) -> bool:
    """Whether it was measured already, has failed once, or is another name for what is measured."""
    done = [Cell(*(known[name] for name in Cell._fields)) for known in results["cells"]]
    failed = [known[1:4] for known, record in zip(done, results["cells"], strict=True) if "error" in record]
    return cell in done or cell[1:4] in failed or compare_report.duplicate_of(results, cell.precision) is not None


def _measured(cell: Cell, results: dict[str, Any]) -> dict[str, Any]:
    changed = {
        **PRECISIONS[cell.precision],
        "model.hidden_dim": cell.hidden_dim,
        "data.batch_size": cell.batch_size,
        "seed_everything": cell.number if cell.kind == "accuracy" else results["config"]["seed_everything"],
    }
    more = (results["seconds"],) if cell.kind == "speed" else ()
    try:
        record = measure.isolated(getattr(measure, cell.kind), results["config"], changed, *more)
    except RunError as error:
        return {"error": str(error)}
    here = {name: record.pop(name) for name in ("device", "half_hardware", "versions")}
    if results.get("device", here["device"]) != here["device"]:
        raise RequestError(f"this is {here['device']}, and not {results['device']}; start a new comparison.")
    results.update(here)
    return record


def _save(results: dict[str, Any], folder: Path) -> None:
    with atomic_write(folder / RESULTS) as draft:
        draft.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


class CompareCLI(measure.FitsCLI):
    name = "compare"
    function = compare

    def add_command_arguments(self) -> None:
        super().add_command_arguments()
        # what is measured is to be the precision, and not the loop around a step
        self._subcommand_parsers["fit"].set_defaults({"model.steps_per_execution": 50})


run = CompareCLI.run
