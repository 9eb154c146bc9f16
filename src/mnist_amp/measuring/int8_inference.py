"""Inference of a classifier by onnxruntime on a CPU, in float32 and in int8.

The forward pass is exported to ONNX and quantized; see `onnx_quantization`.
"""

import platform
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mnist_amp.errors import RunError
from mnist_amp.measuring.inference_inputs import labels_of, resized
from mnist_amp.measuring.inference_records import INT8, ONNX
from mnist_amp.onnx_quantization import PACKAGES, quantize, quiet
from mnist_amp.torch_internals import has_vnni
from mnist_amp.wording import listed

OPSET = 18  # of ONNX: that of torch's exporter
INPUT = "inputs"


class OnnxWay:
    """Inference by onnxruntime on as many threads of a CPU as torch has.

    Args:
        name: of the way.
        path: the ONNX file.

    Attributes:
        file_bytes: size of the file.
    """

    def __init__(self, name: str, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # errors
        self.name, self.file_bytes = name, path.stat().st_size
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def prepare(self) -> None:
        """Do nothing: the session has its own weights."""

    def convert(self, inputs: Any) -> Any:
        return inputs.numpy()

    def run(self, inputs: Any) -> Any:
        return self.session.run(None, {INPUT: inputs})[0]

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes) of inputs (N, ...) on a CPU."""
        return torch.from_numpy(self.run(self.convert(inputs)))


class _Forward(nn.Module):
    """The forward pass alone, without the hooks and properties of a LightningModule."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Any:
        return self.module(inputs)


def check_classifier(module: LightningModule, batch: Any, inputs: Any) -> None:
    """Check that a module can be measured in int8.

    Args:
        module: in the state of inference in float32.
        batch: as `validation_step` gets it.
        inputs: the part of it that `forward` takes.

    Raises:
        RunError: a package is missing, or the module is no classifier.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise RunError(f"int8 needs {listed(missing)}. Install the extra: pip install 'mnist-amp[export]'")
    if not _is_classifier(module, batch, inputs):
        raise RunError(
            "int8 is measured for classifiers only: forward returns logits (N, classes) for a tensor, and a batch has "
            "integer labels (N,)"
        )


def _is_classifier(module: LightningModule, batch: Any, inputs: Any) -> bool:
    labels = labels_of(batch)
    if labels is None or not isinstance(inputs, Tensor):
        return False
    with torch.inference_mode():
        outputs = module(resized(inputs, 2))
    has_logits = isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim == 2
    return has_logits and 1 < outputs.shape[1] > int(labels.max())


def onnx_ways(module: LightningModule, calibration: Sequence[Tensor], folder: Path) -> list[OnnxWay]:
    """Export a module to ONNX, quantize it, and load both files.

    Args:
        module: on a CPU, in the state of inference in float32; see `check_classifier`.
        calibration: batches of training inputs, (N, ...) each.
        folder: for the files, which must exist as long as the ways are used.

    Returns:
        The ways `ONNX` and `INT8`.
    """
    floats, integers = folder / "float32.onnx", folder / "int8.onnx"
    # onnxruntime's advice for the range: one bit less, where sums of products could overflow
    reduce_range = platform.machine() in ("x86_64", "AMD64") and not has_vnni()
    with quiet():
        _export(module, calibration[0], floats)
        quantize(floats, integers, INPUT, (batch.numpy() for batch in calibration), reduce_range=reduce_range)
        return [OnnxWay(ONNX, floats), OnnxWay(INT8, integers)]


def _export(module: LightningModule, inputs: Tensor, path: Path) -> None:
    """Write the ONNX file of a module for any number of inputs (N, ...)."""
    example = resized(inputs, 2)  # a graph that was traced with one input would take only one
    program = torch.export.export(
        _Forward(module).eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    exported = torch.onnx.export(
        program, input_names=[INPUT], dynamo=True, opset_version=OPSET, external_data=False, verbose=False
    )
    assert exported is not None
    path.write_bytes(exported.model_proto.SerializeToString())
