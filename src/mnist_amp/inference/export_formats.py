"""The kinds of files that a trained network is exported to: made as bytes, and loaded again by their own runtimes.

.pth and .safetensors hold the weights alone, with which the guide's class takes pixels of 0 to 255. .onnx and .pt2
hold the whole computation, from images (N, 28, 28) uint8 to logits (N, 10) float32, whatever N is.
"""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call

from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.networks.simple_nn import SimpleNN

METADATA = "mnist_amp"  # under which .pth and .pt2 hold it; the others have an entry for each of its keys
EXAMPLE = (torch.zeros(2, 28, 28, dtype=torch.uint8),)  # not of one image, for which a graph would be made to fit

Metadata = dict[str, Any]  # of plain values
Maker = Callable[[Metadata], bytes]
Scorer = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        packages: that it needs beside torch.
        maker: prepares a network, and returns what makes a file's content, with metadata in it.
        scorer: loads a file; what it returns takes images (N, 28, 28) uint8, and returns logits (N, 10) float32.
        use: how it is used, in Python; {} is its name.
        is_graph: whether the computation is in it, or the weights alone.
        is_exact: whether its runtime is torch, which computes as before.
    """

    packages: tuple[str, ...]
    maker: Callable[[PixelNetwork], Maker]
    scorer: Callable[[Path], Scorer]
    use: str
    is_graph: bool = False
    is_exact: bool = True


class WideNN(nn.Module):
    """Scores as PixelNetwork does, with its weights made float32 each time, and arithmetic in that."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.model = network.model

    def forward(self, images: Tensor) -> Tensor:
        weights = {name: weight.float() for name, weight in self.model.named_parameters()}
        logits: Tensor = functional_call(self.model, weights, (images.float(),))
        return logits


def is_widened(name: str, dtype: torch.dtype) -> bool:
    """Whether weights of that dtype are made float32 for the arithmetic: onnxruntime has no bfloat16 on a CPU."""
    return name == "onnx" and dtype == torch.bfloat16


def _pth_maker(network: PixelNetwork) -> Maker:
    def make(metadata: Metadata) -> bytes:
        weights = network.model.state_dict()
        weights._metadata[METADATA] = metadata  # type: ignore[attr-defined]  # which load_state_dict passes over
        file = io.BytesIO()
        torch.save(weights, file)
        return file.getvalue()

    return make


def _pth_scorer(path: Path) -> Scorer:
    return _scorer(torch.load(path, weights_only=True))


def _safetensors_maker(network: PixelNetwork) -> Maker:
    import safetensors.torch as safetensors

    weights = network.model.state_dict()
    return lambda metadata: safetensors.save(weights, {"format": "pt", **_texts(metadata)})


def _safetensors_scorer(path: Path) -> Scorer:
    import safetensors.torch as safetensors

    return _scorer(safetensors.load_file(path))


def _scorer(weights: Mapping[str, Tensor]) -> Scorer:
    """Load weights into the class that has no normalisation."""
    dtype = weights["fc1.weight"].dtype
    model = SimpleNN(len(weights["fc1.weight"])).to(dtype)
    model.load_state_dict(weights)
    return lambda images: model(images.to(dtype)).float()


def _pt2_maker(network: PixelNetwork) -> Maker:
    program = _program(network)

    def make(metadata: Metadata) -> bytes:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
        return file.getvalue()

    return make


def _pt2_scorer(path: Path) -> Scorer:
    return torch.export.load(path).module()


def _program(network: nn.Module) -> ExportedProgram:
    program = torch.export.export(network, EXAMPLE, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # with folders of this machine
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        program.graph.erase_node(node)  # that it runs on a CPU, which it need not
    return program


def _onnx_maker(network: PixelNetwork) -> Maker:
    widened = is_widened("onnx", network.dtype)
    program = _program(WideNN(network) if widened else network)
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own use of torch
        exported = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=not widened,  # or it makes small weights float32 once and for all
        )
    assert exported is not None
    model = exported.model_proto
    _tidy(model.graph)
    return partial(_onnx_bytes, model)


def _onnx_bytes(model: Any, metadata: Metadata) -> bytes:
    import onnx

    onnx.helper.set_model_props(model, _texts(metadata))
    content: bytes = model.SerializeToString()
    return content


def _tidy(graph: Any) -> None:
    """Leave out how torch came to each part, with folders of this machine, and call N `batch`."""
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _onnx_scorer(path: Path) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # it would take all cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _texts(metadata: Metadata) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


PTH_USE = 'model.load_state_dict(torch.load("{}", weights_only=True))'
SAFETENSORS_USE = 'model.load_state_dict(safetensors.torch.load_file("{}"))'
ONNX_USE = 'onnxruntime.InferenceSession("{}").run(["logits"], {{"images": images}})'
PT2_USE = 'torch.export.load("{}").module()(images)'
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "pth": Format((), _pth_maker, _pth_scorer, PTH_USE),
    "safetensors": Format(("safetensors",), _safetensors_maker, _safetensors_scorer, SAFETENSORS_USE),
    "onnx": Format(ONNX_PACKAGES, _onnx_maker, _onnx_scorer, ONNX_USE, is_graph=True, is_exact=False),
    "pt2": Format((), _pt2_maker, _pt2_scorer, PT2_USE, is_graph=True),
}
