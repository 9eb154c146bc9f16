"""The formats that a trained network is exported to: made as bytes, and loaded again by their own runtimes.

.pth and .safetensors hold the weights alone. With them, the guide's class takes pixels from 0 to 255. .onnx and .pt2
hold the complete computation, from images (N, 28, 28) uint8 to logits (N, 10) float32, for any N.

Examples:
    Export a network to ONNX, load the file with onnxruntime, and compute logits:

        onnx = FORMATS["onnx"]
        make = onnx.maker(PixelNetwork(SimpleNN()))
        Path("model.onnx").write_bytes(make({"author": "me"}))
        logits = onnx.scorer(Path("model.onnx"))(torch.zeros(5, 28, 28, dtype=torch.uint8))  # (5, 10)
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
from mnist_amp.torch_internals import METADATA_ASSERT, metadata_of

METADATA = "mnist_amp"  # the entry that holds the metadata in .pth and .pt2; other formats have an entry for each key
EXAMPLE = (torch.zeros(2, 28, 28, dtype=torch.uint8),)  # two images: a graph that was traced with one takes one only

Metadata = dict[str, Any]  # plain values
Maker = Callable[[Metadata], bytes]
Scorer = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """A format of files.

    Attributes:
        packages: that it needs besides torch.
        maker: takes a network, and returns a function that takes metadata and returns the content of a file.
        scorer: loads a file, and returns a function from images (N, 28, 28) uint8 to logits (N, 10) float32.
        use: Python code that uses a file; {} is its path.
        is_graph: whether a file holds the computation, or the weights alone.
        is_exact: whether torch computes a file, with the same result as the network that was exported.
    """

    packages: tuple[str, ...]
    maker: Callable[[PixelNetwork], Maker]
    scorer: Callable[[Path], Scorer]
    use: str
    is_graph: bool = False
    is_exact: bool = True


class WideNN(nn.Module):
    """Computes what PixelNetwork computes, but in float32: it converts the weights each time."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.model = network.model

    def forward(self, images: Tensor) -> Tensor:
        weights = {name: weight.float() for name, weight in self.model.named_parameters()}
        logits: Tensor = functional_call(self.model, weights, (images.float(),))
        return logits


def is_widened(name: str, dtype: torch.dtype) -> bool:
    """Return whether weights are converted to float32 for the arithmetic: onnxruntime has no bfloat16 on a CPU."""
    return name == "onnx" and dtype == torch.bfloat16


def _pth_maker(network: PixelNetwork) -> Maker:
    def make(metadata: Metadata) -> bytes:
        weights = network.model.state_dict()
        metadata_of(weights)[METADATA] = metadata  # load_state_dict ignores it
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
    """Load weights into the guide's class, which does not normalise."""
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
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    for node in program.graph.find_nodes(op="call_function", target=METADATA_ASSERT):
        program.graph.erase_node(node)  # an assertion that the device is a CPU
    return program


def _onnx_maker(network: PixelNetwork) -> Maker:
    widened = is_widened("onnx", network.dtype)
    program = _program(WideNN(network) if widened else network)
    with warnings.catch_warnings(action="ignore"):  # about the exporter's own use of torch
        exported = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=not widened,  # the optimizer would store small weights in float32
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
    """Remove the trace of each part, which names folders of this machine, and call the dimension N `batch`."""
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _onnx_scorer(path: Path) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # by default it takes all cores
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
