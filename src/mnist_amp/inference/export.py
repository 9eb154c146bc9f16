"""The command `export`: a trained network as files for other programs, each checked against the checkpoint."""

import importlib
import json
import platform
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from mnist_amp import signals
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.error_messages import describe_error
from mnist_amp.cli.lightning_cli import MnistAmpCLI
from mnist_amp.data.image_set import Source
from mnist_amp.data.normalization import Normalization
from mnist_amp.errors import RequestError, RunError, warn
from mnist_amp.inference import export_report
from mnist_amp.inference.export_checks import (
    MismatchError,
    accuracy,
    check,
    check_exact,
    check_int8,
    compute_logits,
    count_layers,
    measure_latency,
)
from mnist_amp.inference.export_formats import FORMATS
from mnist_amp.inference.export_onnx import int8_maker, is_widened, onnx_versions
from mnist_amp.inference.export_results import (
    Accuracy,
    Agreement,
    Calibration,
    ExportedFile,
    ExportFailure,
    ExportResults,
    FileMetadata,
    InputSpec,
    OutputSpec,
    SourceRun,
)
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.onnx_quantization import CALIBRATION_INPUTS
from mnist_amp.runs import checkpoint_contents, folders
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.runs.weights_file import describe
from mnist_amp.signals import Stopped
from mnist_amp.training.averaged_weights import TRAINED_WEIGHTS
from mnist_amp.training.precision import set_matmul_precision, versions
from mnist_amp.wording import counted, nearest

RESULTS = "results.json"
NORMALIZED = "pixels divided by 255, less the mean, and divided by the std of the normalization"
INT8 = "int8"  # a dtype of ONNX files only
CALIBRATION_SEED = 0
INSTALL = "pip install 'mnist-amp[export]'"


class Reference(NamedTuple):
    """The source of the files, which they are checked against.

    Attributes:
        model: the checkpoint's network.
        description: of the network and its images, see `weights_file.describe`.
        run: the checkpoint's run.
        images: the test images (N, C, H, W) uint8.
        labels: their classes (N,).
        logits: the checkpoint's logits (N, classes) for the normalised images, in float32.
        calibration: training images (N, C, H, W) uint8 for int8; empty without it.
    """

    model: nn.Module
    description: dict[str, Any]
    run: SourceRun
    images: Tensor
    labels: Tensor
    logits: Tensor
    calibration: Tensor


def export(cli: "ExportCLI", formats: list[str] | None = None, dtypes: list[str] | None = None) -> Path:
    """Export a checkpoint, check each file, and write and print the results.

    Args:
        cli: its command line
        formats: kinds of files, of pth, safetensors, onnx and pt2; by default all whose packages are installed
        dtypes: of the weights, of float32, float16, bfloat16 and int8 (onnx only); by default float32

    Raises:
        RequestError: a format or dtype is unknown, or a package is missing.
        RunError: a file does not compute what the checkpoint computes, and was not kept.
        Stopped: by a signal; the files that were complete are kept.
    """
    names = ["float32"] if dtypes is None else _chosen("dtypes", dtypes, (*DTYPES, INT8))
    kinds = _available(formats)
    if INT8 in names and "onnx" not in kinds:
        raise RequestError("int8 is a dtype of onnx only. Add onnx to formats, or leave int8 out of dtypes.")
    config = cli.config[cli.like]
    assert cli.start is not None
    reference = _load_reference(cli, cli.start.content, cli.start.path, calibrate=INT8 in names)
    root = Path(config.trainer.default_root_dir or ".")
    files = [f"model-{dtype}.{kind}" for dtype in names for kind in kinds if dtype != INT8 or kind == "onnx"]
    return _write_all(files, reference, cli.command_line, root)


def _chosen(option: str, given: list[str], known: Iterable[str]) -> list[str]:
    for name in given:
        if name not in known:
            raise RequestError(f"{option} has {name}{nearest(name, known)}; it takes {', '.join(known)}.")
    if not given or len(set(given)) < len(given):
        raise RequestError(f"{option} needs at least one name, and each name once. Leave it out to have its default.")
    return given


def _available(formats: list[str] | None) -> list[str]:
    """Return the formats to write: the requested ones, or by default, with a warning, those that can be written."""
    wanted = list(FORMATS) if formats is None else _chosen("formats", formats, FORMATS)
    lacking = {name: missing for name in wanted if (missing := _missing(FORMATS[name].packages))}
    available = [name for name in wanted if name not in lacking]
    needs = " and ".join(f"{name} needs {', '.join(missing)} (not installed)" for name, missing in lacking.items())
    if lacking and formats is not None:
        others = available or [name for name, kind in FORMATS.items() if not kind.packages]
        raise RequestError(
            f"{needs}. Install the extra export, {INSTALL}, or leave it out: --formats '[{','.join(others)}]'"
        )
    if lacking:
        warn(f"{', '.join(lacking)} left out: {needs}. Install the extra export: {INSTALL}")
    return available


def _missing(packages: Iterable[str]) -> list[str]:
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


def _load_reference(cli: "ExportCLI", checkpoint: dict[str, Any], path: Path, *, calibrate: bool) -> Reference:
    module, data = cli.model.eval(), cli.datamodule
    module.load_state_dict(checkpoint["state_dict"])
    data.prepare_data()
    images, labels = data.source.load(train=False)
    epochs, step = checkpoint_contents.known_progress(checkpoint) or (None, None)
    precision = checkpoint_contents.RunInfo.of(checkpoint).precision
    run = SourceRun(str(path), epochs, step, TRAINED_WEIGHTS in checkpoint, precision)
    description = describe(module.hparams["network"], data)
    logits = compute_logits(lambda batch: module.model(data.normalization(batch)), images)
    calibration = _calibration_images(data.source) if calibrate else images[:0]
    return Reference(module.model, description, run, images, labels, logits, calibration)


def _calibration_images(source: Source) -> Tensor:
    images = source.load(train=True).images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(CALIBRATION_SEED))
    return images[order[:CALIBRATION_INPUTS]]


def _write_all(names: list[str], reference: Reference, command: str, root: Path) -> Path:
    """Write files of these names to a new folder, and return it. It is removed if none of them passes the checks."""
    note = " (int8 as onnx only)" if len(reference.calibration) else ""
    sys.stderr.write(f"mnist-amp: exporting {reference.run.checkpoint} to {counted(len(names), 'file')}{note}\n")
    results = _results(reference, command)
    files: list[ExportedFile] = []
    failures: list[ExportFailure] = []
    with signals.keyboard_interrupts():
        folder = folders.create_run_dir(root, "export")
        try:
            for name in names:
                _try(folder / name, reference, files, failures)
        except KeyboardInterrupt as interrupt:
            raise Stopped(interrupt.args[0], f"after {_kept(files, folder)}.") from None
        finally:
            results = replace(results, files=tuple(files))
            _finish(results, folder)
    if files:
        print(export_report.terminal(results, str(folder), _uses(files, folder)), flush=True)
    if failures:
        raise RunError(_describe_failures(failures, _kept(files, folder))) from failures[0].error
    return folder


def _try(path: Path, reference: Reference, files: list[ExportedFile], failures: list[ExportFailure]) -> None:
    try:
        files.append(_write(path, reference))
    except RunError:  # the disk is full; the next file would fail also
        raise
    except Exception as error:
        failures.append(ExportFailure(path.name, error))


def _write(path: Path, reference: Reference) -> ExportedFile:
    """Write a file. It gets its name only after it was loaded again and passed the checks."""
    dtype, kind = path.stem.removeprefix("model-"), FORMATS[path.suffix[1:]]
    normalization, labels = Normalization(**reference.description["normalization"]), reference.labels
    network = PixelNetwork(reference.model, normalization, DTYPES.get(dtype, torch.float32))
    if dtype == INT8:
        make = int8_maker(network, reference.calibration)
    else:
        make = kind.maker(network, reference.images[:1].repeat(2, 1, 1, 1))
    wanted = compute_logits(network, reference.images)
    metadata = _metadata(path.suffix[1:], dtype, reference, accuracy(wanted, labels))
    with atomic_write(path) as temporary:
        temporary.write_bytes(make(metadata.to_json()))
        logits = compute_logits(kind.scorer(temporary), reference.images)
        if kind.is_exact:
            check_exact(logits, wanted, network.dtype)
        elif (measured := accuracy(logits, labels)) != metadata.accuracy:  # the file must contain its own
            metadata = replace(metadata, accuracy=measured)
            temporary.write_bytes(make(metadata.to_json()))
            logits = compute_logits(kind.scorer(temporary), reference.images)
        agreement = _check(logits, dtype, reference)
        latency = measure_latency(kind.scorer(temporary), reference.images)
        versions = onnx_versions(temporary) if path.suffix == ".onnx" else None
        return ExportedFile(path.name, temporary.stat().st_size, agreement, latency, metadata, versions)


def _check(logits: Tensor, dtype: str, reference: Reference) -> Agreement:
    if dtype == INT8:
        return check_int8(logits, reference.logits, reference.labels)
    return check(logits, reference.logits, DTYPES[dtype], count_layers(reference.model))


def _metadata(name: str, dtype: str, reference: Reference, accuracy: Accuracy) -> FileMetadata:
    kind, description = FORMATS[name], reference.description
    return FileMetadata(
        **description,
        input=InputSpec(
            name="images",
            shape=["N", *description["image_shape"]],
            dtype="uint8" if kind.is_graph else dtype,
            range=[0, 255] if kind.is_graph else None,
            meaning="pixels; the file normalises them" if kind.is_graph else NORMALIZED,
        ),
        output=OutputSpec(
            name="logits",
            shape=["N", len(description["classes"])],
            dtype="float32" if kind.is_graph else dtype,
            meaning="the largest is that of the predicted class; softmax makes probabilities of them",
        ),
        dtype=dtype,
        arithmetic="float32" if is_widened(name, dtype) else dtype,
        run=reference.run,
        versions=versions() | {package: importlib.import_module(package).__version__ for package in kind.packages},
        date=_now(),
        accuracy=accuracy,
        calibration=Calibration(len(reference.calibration), CALIBRATION_SEED) if dtype == INT8 else None,
    )


def _results(reference: Reference, command: str) -> ExportResults:
    """Return the results of an export that has no files yet."""
    return ExportResults(
        command=command,
        date=_now(),
        device=f"CPU ({platform.machine()}, threads: {torch.get_num_threads()})",
        versions=versions(),
        run=reference.run,
        accuracy=accuracy(reference.logits, reference.labels),
        largest_logit=reference.logits.abs().max().item(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _finish(results: ExportResults, folder: Path) -> None:
    if not results.files:
        folder.rmdir()
        return
    with atomic_write(folder / RESULTS) as temporary:
        temporary.write_text(json.dumps(results.to_json(), indent=2) + "\n", encoding="utf-8")


def _kept(files: list[ExportedFile], folder: Path) -> str:
    return f"{counted(len(files), 'file')} passed, kept in {folder}" if files else "no file passed, so none is kept"


def _uses(files: list[ExportedFile], folder: Path) -> dict[str, str]:
    """Return for each format the Python code that uses its first file."""
    first = {Path(file.file).suffix[1:]: f"{folder}/{file.file}" for file in reversed(files)}
    return {name: kind.use.format(first[name]) for name, kind in FORMATS.items() if name in first}


def _describe_failures(failures: list[ExportFailure], kept: str) -> str:
    reasons = [
        f"{name}: {error if isinstance(error, MismatchError) else describe_error(error)[0]}" for name, error in failures
    ]
    return (
        f"{counted(len(failures), 'file')} could not be exported, or did not agree with the checkpoint on the test "
        f"images. {'. '.join(reasons)}. {kept[0].upper()}{kept[1:]}. Leave out what fails with --formats or --dtypes."
    )


class ExportCLI(CommandCLI):
    """The command line of `export`: its own options, and those of `test`."""

    name = "export"
    like = "test"
    unused: ClassVar = {"verbose", "weights_only"}
    function = export

    def before_instantiate_classes(self) -> None:
        set_matmul_precision("highest")  # the checkpoint's logits are those of float32, without TF32

    def instantiate_classes(self) -> None:
        """Make the network and the data of the checkpoint, which verifies it."""
        MnistAmpCLI.instantiate_classes(self)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return self.make_trainer([], logger=False, enable_progress_bar=False, **kwargs)


run = ExportCLI.run
