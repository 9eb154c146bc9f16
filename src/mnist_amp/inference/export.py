"""The command `export`: a trained network as files for others to use, each checked against the checkpoint."""

import importlib
import json
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mnist_amp import signals
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.error_messages import describe_error
from mnist_amp.data import mnist
from mnist_amp.data.normalization import normalize
from mnist_amp.errors import RequestError, RunError, warn
from mnist_amp.inference import export_report
from mnist_amp.inference.export_formats import FORMATS, Metadata, Scorer, is_widened
from mnist_amp.inference.pixels import DTYPES, PixelNN
from mnist_amp.module import LitSimpleNN
from mnist_amp.networks.simple_nn import SimpleNN
from mnist_amp.runs import checkpoint_contents, folders, resume
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.signals import Stopped
from mnist_amp.training.precision import versions
from mnist_amp.wording import counted, nearest

RESULTS = "results.json"
INSTALL = 'pip install ".[export]"'
# How far a logit may be from the checkpoint's, in machine epsilons of the dtype times the largest logit. In half
# precision each weight and each value is rounded once, by half an epsilon of it at most, some up and some down. In
# float32 it is the sums that are rounded, of 784 products and then of one for each hidden unit, in one order here and
# in another there: by half an epsilon times the root of how many there are, 35 at width 4096. A guess can differ only
# where two of the checkpoint's logits are nearer to each other than twice that.
EPSILONS = {torch.float32: 32, torch.float16: 4, torch.bfloat16: 4}
FIRST = [1, 7]  # images in the first batches, as a file must take any number of them
BATCH = 1000  # images in the others


class MismatchError(ValueError):
    """A file does not do as the checkpoint does; the message says in what."""


class Job(NamedTuple):
    """What the files are made from, and checked with.

    Attributes:
        model: the checkpoint's.
        run: what the files say of the checkpoint.
        images: the test images (N, 28, 28) uint8.
        labels: their digits (N,).
        logits: the checkpoint's own (N, 10), in float32, for the images normalised as in its training.
    """

    model: SimpleNN
    run: dict[str, Any]
    images: Tensor
    labels: Tensor
    logits: Tensor


def export(cli: "ExportCLI", formats: list[str] | None = None, dtypes: list[str] | None = None) -> None:
    """Export a checkpoint, check each file, and write and print what was found.

    Args:
        cli: its command line
        formats: kinds of files, of pth, safetensors, onnx and pt2; by default all whose packages are installed
        dtypes: of the weights, of float32, float16 and bfloat16; by default float32

    Raises:
        RequestError: there is no such format or dtype, or a package is missing.
        RunError: a file does not do as the checkpoint does, and is not there.
        Stopped: by a signal; the files that were done are kept.
    """
    names = ["float32"] if dtypes is None else _chosen("dtypes", dtypes, DTYPES)
    kinds = _available(formats)
    config = cli.config[cli.like]
    assert cli.checkpoint is not None
    job = _job(cli.checkpoint, Path(config.ckpt_path), Path(config.data.data_dir))
    root = Path(config.trainer.default_root_dir or ".")
    _write_all([f"model-{dtype}.{kind}" for dtype in names for kind in kinds], job, cli.command_line, root)


def _chosen(option: str, given: list[str], known: Iterable[str]) -> list[str]:
    for name in given:
        if name not in known:
            raise RequestError(f"{option} has {name}{nearest(name, known)}; it takes {', '.join(known)}.")
    if not given or len(set(given)) < len(given):
        raise RequestError(f"{option} needs at least one, and each once. Leave it out to have its default.")
    return given


def _available(formats: list[str] | None) -> list[str]:
    """Return the formats to write: those asked for, or all whose packages are there; what is left out is said."""
    wanted = list(FORMATS) if formats is None else _chosen("formats", formats, FORMATS)
    lacking = {name: missing for name in wanted if (missing := _missing(FORMATS[name].packages))}
    there = [name for name in wanted if name not in lacking]
    what = " and ".join(f"{name} needs {', '.join(missing)}" for name, missing in lacking.items())
    if lacking and formats is not None:
        others = there or [name for name, kind in FORMATS.items() if not kind.packages]
        raise RequestError(
            f"{what}: not installed. Install the extra export, {INSTALL}, or leave it out: --formats "
            f"'[{','.join(others)}]'"
        )
    if lacking:
        warn(f"left out is {', '.join(lacking)}, as {what}: not installed. The extra export has it: {INSTALL}")
    return there


def _missing(packages: Iterable[str]) -> list[str]:
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


def _job(checkpoint: dict[str, Any], path: Path, data_dir: Path) -> Job:
    width = checkpoint["hyper_parameters"]["hidden_dim"]
    module = LitSimpleNN(width).eval()
    resume.check_network(path, checkpoint, module.state_dict())
    module.load_state_dict(checkpoint["state_dict"])
    mnist.prepare(data_dir)
    images, labels = mnist.load(data_dir, train=False)
    run = {"checkpoint": str(path), **checkpoint_contents.progress(checkpoint)._asdict(), "hidden_dim": width}
    run["precision"] = checkpoint_contents.RunInfo.of(checkpoint).precision
    return Job(module.model, run, images, labels, scored(lambda part: module.model(normalize(part)), images))


def scored(scorer: Scorer, images: Tensor) -> Tensor:
    """Return the logits (N, 10) of images (N, 28, 28) uint8, which are scored in batches of several sizes."""
    first, rest = images[: sum(FIRST)], images[sum(FIRST) :]
    with torch.no_grad():
        return torch.cat([scorer(batch) for batch in (*torch.split(first, FIRST), *torch.split(rest, BATCH))])


def _write_all(names: list[str], job: Job, command: str, root: Path) -> None:
    """Write files of these names to a new folder, which there is not if none of them is as it should be."""
    sys.stderr.write(f"mnist-amp: exporting {job.run['checkpoint']} to {counted(len(names), 'file')}\n")
    record: dict[str, Any] = {"command": command, **_circumstances(job), "files": []}
    failures: dict[str, Exception] = {}
    with signals.keyboard_interrupts():
        folder = folders.create_run_dir(root, "export")
        try:
            for name in names:
                _try(folder / name, job, record["files"], failures)
        except KeyboardInterrupt as interrupt:
            raise Stopped(interrupt.args[0], f"after {_kept(record, folder)}.") from None
        finally:
            _finish(record, folder)
    if record["files"]:
        print(export_report.terminal(record, str(folder), _uses(record, folder)), flush=True)
    if failures:
        raise RunError(_told(failures, _kept(record, folder))) from next(iter(failures.values()))


def _try(path: Path, job: Job, files: list[dict[str, Any]], failures: dict[str, Exception]) -> None:
    try:
        files.append(_write(path, job))
    except RunError:  # the disk's
        raise
    except Exception as error:
        failures[path.name] = error


def _write(path: Path, job: Job) -> dict[str, Any]:
    """Write a file, which has its name only once it was loaded again and checked; returns what was found."""
    dtype, kind = path.stem.removeprefix("model-"), FORMATS[path.suffix[1:]]
    network = PixelNN(job.model, DTYPES[dtype])
    make, metadata = kind.maker(network), _metadata(path.suffix[1:], dtype, job.run)
    known = scored(network, job.images)
    with atomic_write(path) as draft:
        draft.write_bytes(make(metadata | _accuracy(known, job.labels)))
        found = scored(kind.scorer(draft), job.images)
        if kind.is_exact:
            _check_exact(found, known, DTYPES[dtype])
        elif _accuracy(found, job.labels) != _accuracy(known, job.labels):  # its own is to be in it
            draft.write_bytes(make(metadata | _accuracy(found, job.labels)))
            found = scored(kind.scorer(draft), job.images)
        figures = check(found, job.logits, DTYPES[dtype])
        size = draft.stat().st_size
    return {"file": path.name, "bytes": size, **_accuracy(found, job.labels), **figures, **metadata}


def check(logits: Tensor, wanted: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """Compare a file's logits (N, 10) with the checkpoint's.

    Raises:
        MismatchError: they differ by more than rounding to `dtype` does, or in float32 by a guess.
    """
    if logits.shape != wanted.shape:
        raise MismatchError(f"its logits are {tuple(logits.shape)} and not {tuple(wanted.shape)}")
    largest = (logits - wanted).abs().max().item()
    allowed = EPSILONS[dtype] * torch.finfo(dtype).eps * wanted.abs().max().item()
    differing = int((logits.argmax(dim=1) != wanted.argmax(dim=1)).sum())
    if not largest <= allowed or (dtype == torch.float32 and differing):  # not a number, too
        raise MismatchError(
            f"{differing:,} of {len(wanted):,} guesses differ, and a logit differs by {largest:.2g}, where rounding "
            f"explains {allowed:.2g}"
        )
    return {"differing_guesses": differing, "largest_difference": largest, "allowed_difference": allowed}


def _check_exact(logits: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Refuse what torch computes otherwise than before, but for a last bit, which memory's layout may decide."""
    differing = int((logits.argmax(dim=1) != wanted.argmax(dim=1)).sum())
    largest = (logits - wanted).abs().max().item()
    if differing or not largest <= torch.finfo(dtype).eps * wanted.abs().max().item():
        raise MismatchError(
            f"{differing:,} guesses are not those of the network that it was made from, and a logit differs by "
            f"{largest:.2g}"
        )


def _accuracy(logits: Tensor, labels: Tensor) -> dict[str, dict[str, int]]:
    return {"accuracy": {"correct": int((logits.argmax(dim=1) == labels).sum()), "images": len(labels)}}


def _metadata(name: str, dtype: str, run: dict[str, Any]) -> Metadata:
    """Return what a file says of itself, but for its accuracy."""
    kind, meaning = FORMATS[name], "a digit, light on dark, where 0 is black; normalisation is in the weights"
    return {
        "classes": [str(digit) for digit in range(10)],
        "input": {
            **{"name": "images", "shape": ["N", 28, 28], "dtype": "uint8" if kind.is_graph else dtype},
            **{"range": [0, 255], "meaning": meaning},
        },
        "output": {
            **{"name": "logits", "shape": ["N", 10], "dtype": "float32" if kind.is_graph else dtype},
            "meaning": "the largest is that of the digit; softmax makes probabilities of them",
        },
        "dtype": dtype,
        "arithmetic": "float32" if is_widened(name, DTYPES[dtype]) else dtype,
        "run": run,
        "versions": versions() | {package: importlib.import_module(package).__version__ for package in kind.packages},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _circumstances(job: Job) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"CPU ({platform.machine()}, threads: {torch.get_num_threads()})",
        "versions": versions(),
        "run": job.run,
        **_accuracy(job.logits, job.labels),
        "largest_logit": job.logits.abs().max().item(),
    }


def _finish(record: dict[str, Any], folder: Path) -> None:
    if not record["files"]:
        folder.rmdir()
        return
    with atomic_write(folder / RESULTS) as draft:
        draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _kept(record: dict[str, Any], folder: Path) -> str:
    count = counted(len(record["files"]), "file")
    return f"{count} passed, kept in {folder}" if record["files"] else "no file passed, so none is kept"


def _uses(record: dict[str, Any], folder: Path) -> dict[str, str]:
    """Return how the first file of each format is used."""
    files = {Path(file["file"]).suffix[1:]: f"{folder}/{file['file']}" for file in reversed(record["files"])}
    return {name: kind.use.format(files[name]) for name, kind in FORMATS.items() if name in files}


def _told(failures: dict[str, Exception], kept: str) -> str:
    texts = [
        f"{name}: {error if isinstance(error, MismatchError) else describe_error(error)[0]}"
        for name, error in failures.items()
    ]
    count = counted(len(failures), "file")
    return (
        f"{count} could not be made, or did not do as the checkpoint does on the test images. {'. '.join(texts)}. "
        f"{kept[0].upper()}{kept[1:]}. Leave out with --formats or --dtypes what fails."
    )


class ExportCLI(CommandCLI):
    name = "export"
    like = "test"
    unused: ClassVar = {"verbose", "weights_only"}
    function = export

    def before_instantiate_classes(self) -> None:
        torch.set_float32_matmul_precision("highest")  # whatever the run trained with, it is float32 that is compared


run = ExportCLI.run
