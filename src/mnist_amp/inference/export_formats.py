"""The formats that a trained network is exported to: made as bytes, and loaded again by their own runtimes.

.pth and .safetensors hold the weights as they were trained, for normalised images; their metadata tell the network and
the normalisation. .onnx and .pt2 hold the complete computation, with the normalisation, from images (N, C, H, W) uint8
to logits (N, classes) float32, for any N.

Examples:
    Export a network to ONNX, load the file with onnxruntime, and compute logits:

        onnx = FORMATS["onnx"]
        make = onnx.maker(PixelNetwork(SimpleNN()), torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
        Path("model.onnx").write_bytes(make({"author": "me"}))
        logits = onnx.scorer(Path("model.onnx"))(torch.zeros(5, 1, 28, 28, dtype=torch.uint8))  # (5, 10)
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

from mnist_amp.data.normalization import Normalization
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.networks.factory import make_network
from mnist_amp.runs.weights_file import METADATA, with_metadata
from mnist_amp.torch_internals import METADATA_ASSERT, metadata_of

OPSET = 18  # of ONNX: that of torch's exporter, which converts to others; its files need the IR version 8
Metadata = dict[str, Any]  # plain values
Maker = Callable[[Metadata], bytes]
Scorer = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """A format of files.

    Attributes:
        packages: that it needs besides torch.
        maker: takes a network and two images, and returns a function that takes metadata and returns the content of a
            file. A graph that was traced with one image would take only one.
        scorer: loads a file, and returns a function from images (N, C, H, W) uint8 to logits (N, classes) float32.
        use: Python code that uses a file; {} is its path.
        is_graph: whether a file holds the computation, or the weights alone.
        is_exact: whether torch computes a file, with the same result as the network that was exported.
    """

    packages: tuple[str, ...]
    maker: Callable[[PixelNetwork, Tensor], Maker]
    scorer: Callable[[Path], Scorer]
    use: str
    is_graph: bool = False
    is_exact: bool = True


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


def is_widened(name: str, dtype: torch.dtype) -> bool:
    """Return whether weights are converted to float32 for the arithmetic: onnxruntime has no bfloat16 on a CPU."""
    return name == "onnx" and dtype == torch.bfloat16


def _pth_maker(network: PixelNetwork, example: Tensor) -> Maker:
    def make(metadata: Metadata) -> bytes:
        weights = network.model.state_dict()
        file = io.BytesIO()
        torch.save(with_metadata(weights, metadata), file)
        return file.getvalue()

    return make


def _pth_scorer(path: Path) -> Scorer:
    weights = torch.load(path, weights_only=True)
    return _scorer(weights, metadata_of(weights)[METADATA])


def _safetensors_maker(network: PixelNetwork, example: Tensor) -> Maker:
    import safetensors.torch as safetensors

    weights = {name: value.clone() for name, value in network.model.state_dict().items()}  # it takes no shared memory
    return lambda metadata: safetensors.save(weights, {"format": "pt", **_texts(metadata)})


def _safetensors_scorer(path: Path) -> Scorer:
    import safetensors.torch as safetensors
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        texts = file.metadata()
    metadata = {key: json.loads(texts[key]) for key in ("network", "classes", "image_shape", "normalization")}
    return _scorer(safetensors.load_file(path), {**metadata, "dtype": texts["dtype"]})


def _scorer(weights: Mapping[str, Tensor], metadata: Metadata) -> Scorer:
    """Load weights into the network that the metadata name."""
    model = make_network(metadata["network"], len(metadata["classes"]), tuple(metadata["image_shape"]))
    dtype = DTYPES[metadata["dtype"]]
    model.to(dtype).load_state_dict(weights)
    return PixelNetwork(model, Normalization(**metadata["normalization"]), dtype)


def _pt2_maker(network: PixelNetwork, example: Tensor) -> Maker:
    program = _program(network, example)

    def make(metadata: Metadata) -> bytes:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
        return file.getvalue()

    return make


def _pt2_scorer(path: Path) -> Scorer:
    return torch.export.load(path).module()


def _program(network: nn.Module, example: Tensor) -> ExportedProgram:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    for node in program.graph.find_nodes(op="call_function", target=METADATA_ASSERT):
        program.graph.erase_node(node)  # an assertion that the device is a CPU
    return program


def _onnx_maker(network: PixelNetwork, example: Tensor) -> Maker:
    import onnx

    widened = is_widened("onnx", network.dtype)
    program = _program(WideNN(network) if widened else network, example)
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
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
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
