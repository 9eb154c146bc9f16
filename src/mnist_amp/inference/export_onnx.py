"""ONNX files, for as many runtimes as possible, and their int8 form.

torch writes opset 18, but few operators need it. onnx's own converter goes down one opset at a time, as far as it has
an older form of each operator: to 14 for SimpleNN, to 17 where there is a LayerNormalization. The IR version, which
decides what a runtime loads at all, follows from the opset. The older forms compute the same, and the checks on all
test images run on the file that was converted.
"""

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mnist_amp.inference.export_results import OnnxVersions
from mnist_amp.inference.file_content import Maker, Metadata, Scorer, texts
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.inference.traced_program import trace
from mnist_amp.onnx_quantization import quantize, quiet

OPSET = 18  # of torch's exporter
CALIBRATION_BATCH = 100  # images, to limit the memory


class WideNN(nn.Module):
    """Computes what PixelNetwork computes, but in float32: it converts the weights each time."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.model, self.normalization = network.model, network.normalization

    def forward(self, images: Tensor) -> Tensor:
        weights = {
            name: _widened(value) for name, value in (*self.model.named_parameters(), *self.model.named_buffers())
        }
        logits: Tensor = functional_call(self.model, weights, (self.normalization(images),))
        return logits


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def is_widened(name: str, dtype: str) -> bool:
    """Return whether a file's weights are converted to float32 for the arithmetic.

    onnxruntime has no bfloat16 on a CPU.
    """
    return name == "onnx" and dtype == "bfloat16"


def onnx_maker(network: PixelNetwork, example: Tensor) -> Maker:
    """See `Format.maker`."""
    widened = network.dtype == torch.bfloat16
    program = trace(WideNN(network) if widened else network, example)
    with warnings.catch_warnings(action="ignore"):  # about the exporter's own use of torch
        exported = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            optimize=not widened,  # the optimizer would store small weights in float32
        )
    assert exported is not None
    model = exported.model_proto
    _tidy(model.graph)
    return partial(_content, _lowered(model))


def int8_maker(network: PixelNetwork, calibration: Tensor) -> Maker:
    """Quantize the ONNX file of a network in float32.

    The weights have 7 bits, because the file may be used on a CPU where sums of products of 8 bits overflow.

    Args:
        network: in float32.
        calibration: training images (N, C, H, W) uint8, at least 2.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder, quiet():
        floats, integers = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        floats.write_bytes(onnx_maker(network, calibration[:2])({}))
        batches = (batch.numpy() for batch in torch.split(calibration, CALIBRATION_BATCH))
        quantize(floats, integers, "images", batches, reduce_range=True)
        model = onnx.load(integers)
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]  # onnxruntime names all that it knows
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(opsets)
    _tidy(model.graph)
    return partial(_content, model)


def onnx_scorer(path: Path) -> Scorer:
    """See `Format.scorer`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # by default it takes all cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def onnx_versions(path: Path) -> OnnxVersions:
    """Return what a runtime must know to load an ONNX file."""
    import onnx

    model = onnx.load(path)
    return OnnxVersions(model.ir_version, next(opset.version for opset in model.opset_import if not opset.domain))


def _lowered(model: Any) -> Any:
    """Return a model with the lowest opset that onnx's converter reaches, and the lowest IR version for it."""
    import onnx
    from onnx.version_converter import convert_version

    _drop_attributes(model.graph)
    for opset in range(OPSET - 1, 0, -1):
        try:
            lower = convert_version(model, opset)
            onnx.checker.check_model(lower, full_check=True)
        except Exception:  # several kinds; an operator has no older form, or the converter lacks it
            break
        model = lower
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    _tidy(model.graph)
    return model


def _drop_attributes(graph: Any) -> None:
    """Remove attributes that change nothing here, and that the converter or older runtimes do not handle.

    These are noop_with_empty_axes of reductions, if it is 0 (its default), and allowzero of Reshape, if its shape is a
    constant without a 0. onnxruntime 1.8 to 1.11 fail at allowzero with a -1 in the shape.
    """
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        for attribute in list(node.attribute):
            shape = constants.get(node.input[1]) if attribute.name == "allowzero" else None
            if (attribute.name == "noop_with_empty_axes" and attribute.i == 0) or (
                shape is not None and numpy_helper.to_array(shape).all()
            ):
                node.attribute.remove(attribute)


def _tidy(graph: Any) -> None:
    """Remove the trace of each part, which names folders of this machine, and call the dimension N `batch`."""
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _content(model: Any, metadata: Metadata) -> bytes:
    import onnx

    onnx.helper.set_model_props(model, texts(metadata))
    content: bytes = model.SerializeToString()
    return content
