"""The records of `export`: what is written to `results.json`, and the metadata that every exported file contains."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Accuracy:
    """How many of the test images are classified correctly.

    Attributes:
        correct: images whose largest logit is that of their class.
        images: all images.
    """

    correct: int
    images: int

    @property
    def share(self) -> float:
        return self.correct / self.images


@dataclass(frozen=True)
class Agreement:
    """How far a file's logits for the test images are from the checkpoint's.

    Attributes:
        differing_guesses: images whose largest logit is that of another class.
        largest_difference: between two logits.
        allowed_difference: the difference that rounding explains; None for int8.
        allowed_guesses: for int8, how many guesses may differ.
    """

    differing_guesses: int
    largest_difference: float
    allowed_difference: float | None
    allowed_guesses: int | None = None


@dataclass(frozen=True)
class Latency:
    """How long a file takes on the machine that exported it.

    Attributes:
        single_seconds: median time of one image.
        bulk_seconds: median time of a batch.
        bulk_images: images in that batch.
    """

    single_seconds: float
    bulk_seconds: float
    bulk_images: int


class OnnxVersions(NamedTuple):
    """The versions that an ONNX file needs; a runtime loads all up to its own.

    Attributes:
        ir_version: of the file format.
        opset: version of the operators.
    """

    ir_version: int
    opset: int


class Calibration(NamedTuple):
    """The images that the ranges of an int8 file come from: of the training images, chosen at random.

    Attributes:
        images: their number.
        seed: of the choice.
    """

    images: int
    seed: int


@dataclass(frozen=True)
class SourceRun:
    """The run whose checkpoint is exported.

    Attributes:
        checkpoint: path of the file.
        epochs: complete epochs of training; None for weights alone.
        step: optimizer steps; None for weights alone.
        averaged: whether the weights are averages, such as those of EMAWeightAveraging.
        precision: that it was trained in, such as `16-mixed`; None if the checkpoint does not tell.
    """

    checkpoint: str
    epochs: int | None
    step: int | None
    averaged: bool
    precision: str | None


@dataclass(frozen=True)
class InputSpec:
    """The tensor that an exported network takes.

    Attributes:
        name: of the tensor.
        shape: sizes; `N` is any number of images.
        dtype: name of the dtype.
        range: lowest and highest value; None if they depend on the normalisation.
        meaning: of the values, in a sentence.
    """

    name: str
    shape: list[str | int]
    dtype: str
    range: list[int] | None
    meaning: str


@dataclass(frozen=True)
class OutputSpec:
    """The tensor that an exported network returns; the attributes are those of `InputSpec`."""

    name: str
    shape: list[str | int]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class FileMetadata:
    """The metadata in an exported file.

    Attributes:
        network: class_path and init_args of the network.
        classes: names of the classes, in the order of the logits.
        image_shape: channels, height and width of the images.
        normalization: mean and standard deviation that the network was trained with, for values from 0 to 1.
        input: the tensor that the network takes.
        output: the tensor that the network returns.
        dtype: of the weights.
        arithmetic: dtype of the computation.
        run: where the weights come from.
        versions: of the packages that wrote the file.
        date: when it was written, in ISO format.
        accuracy: of this file on the test images.
        calibration: of an int8 file; None for others.
    """

    network: dict[str, Any]
    classes: list[str]
    image_shape: list[int]
    normalization: dict[str, Any]
    input: InputSpec
    output: OutputSpec
    dtype: str
    arithmetic: str
    run: SourceRun
    versions: dict[str, str]
    date: str
    accuracy: Accuracy
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        calibration = found.pop("calibration")
        return found if calibration is None else {**found, "calibration": calibration._asdict()}


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that passed the checks.

    Attributes:
        file: its name.
        bytes: its size.
        agreement: with the checkpoint.
        latency: on this machine.
        metadata: in the file.
        onnx: the versions of an ONNX file; None for others.
    """

    file: str
    bytes: int
    agreement: Agreement
    latency: Latency
    metadata: FileMetadata
    onnx: OnnxVersions | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"file": self.file, "bytes": self.bytes, **asdict(self.agreement), **asdict(self.latency)}
        versions = {} if self.onnx is None else {"onnx": self.onnx._asdict()}
        return {**found, **versions, **self.metadata.to_json()}


class ExportFailure(NamedTuple):
    """A file that could not be exported, or did not pass the checks.

    Attributes:
        file: its name.
        error: the reason.
    """

    file: str
    error: Exception


@dataclass(frozen=True)
class ExportResults:
    """The content of `results.json`.

    Attributes:
        command: the command line.
        date: when the export began, in ISO format.
        device: where the files were checked.
        versions: of the packages that the numbers depend on.
        run: the exported run.
        accuracy: of the checkpoint on the test images.
        largest_logit: the largest absolute value among the checkpoint's logits.
        files: those that passed the checks.
    """

    command: str
    date: str
    device: str
    versions: dict[str, str]
    run: SourceRun
    accuracy: Accuracy
    largest_logit: float
    files: tuple[ExportedFile, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"files": [file.to_json() for file in self.files]}
