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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_amp.data.normalization import Normalization
from mnist_amp.inference.export_onnx import onnx_maker, onnx_scorer
from mnist_amp.inference.file_content import Maker, Metadata, Scorer, texts
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.inference.traced_program import trace
from mnist_amp.networks.factory import make_network
from mnist_amp.onnx_quantization import PACKAGES
from mnist_amp.runs.weights_file import METADATA, with_metadata
from mnist_amp.torch_internals import metadata_of


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
    return lambda metadata: safetensors.save(weights, {"format": "pt", **texts(metadata)})


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
    program = trace(network, example)

    def make(metadata: Metadata) -> bytes:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
        return file.getvalue()

    return make


def _pt2_scorer(path: Path) -> Scorer:
    return torch.export.load(path).module()


PTH_USE = 'model.load_state_dict(torch.load("{}", weights_only=True))'
SAFETENSORS_USE = 'model.load_state_dict(safetensors.torch.load_file("{}"))'
ONNX_USE = 'onnxruntime.InferenceSession("{}").run(["logits"], {{"images": images}})'
PT2_USE = 'torch.export.load("{}").module()(images)'
FORMATS = {
    "pth": Format((), _pth_maker, _pth_scorer, PTH_USE),
    "safetensors": Format(("safetensors",), _safetensors_maker, _safetensors_scorer, SAFETENSORS_USE),
    "onnx": Format(PACKAGES, onnx_maker, onnx_scorer, ONNX_USE, is_graph=True, is_exact=False),
    "pt2": Format((), _pt2_maker, _pt2_scorer, PT2_USE, is_graph=True),
}
