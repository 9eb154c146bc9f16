"""ONNX files with the lowest opset: they compute exactly what the file of torch's exporter computes."""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mnist_amp.data.normalization import TO_UNIT
from mnist_amp.inference import export_onnx
from mnist_amp.inference.export_formats import FORMATS
from mnist_amp.inference.export_onnx import int8_maker, onnx_versions
from mnist_amp.inference.export_results import OnnxVersions
from mnist_amp.inference.pixel_network import DTYPES, PixelNetwork
from mnist_amp.networks import CNN, SimpleNN, ViT
from mnist_amp.networks.factory import make_network

RESNET = {"class_path": "torchvision.models.resnet18", "init_args": {}}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SimpleNN": SimpleNN,
    "CNN": CNN,
    "ViT": ViT,
    "ResNet-18": lambda: make_network(RESNET, 10, (3, 32, 32)),
}


# before 1.22, onnx's converter lost the axes of reductions; the file then stays at opset 18
OLD = tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 22)


def logits(content: bytes, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        ("SimpleNN", "float32", OnnxVersions(7, 14)),
        ("SimpleNN", "bfloat16", OnnxVersions(8, 15)),
        ("CNN", "float16", OnnxVersions(7, 14)),
        ("ViT", "float32", OnnxVersions(8, 17)),
        ("ViT", "bfloat16", OnnxVersions(8, 18)),
        ("ResNet-18", "float32", OnnxVersions(7, 14)),
    ],
)
def test_the_lowest_opset_computes_exactly_the_same(
    kind: str, dtype: str, expected: OnnxVersions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shape = (3, 32, 32) if kind == "ResNet-18" else (1, 28, 28)
    images = torch.randint(0, 256, (10, *shape), dtype=torch.uint8)
    network = PixelNetwork(NETWORKS[kind](), TO_UNIT, DTYPES[dtype])
    path = tmp_path / "model.onnx"
    path.write_bytes(lowest := FORMATS["onnx"].maker(network, images[:2])({}))
    onnx.checker.check_model(path, full_check=True)
    assert onnx_versions(path) == (OnnxVersions(8, 18) if OLD and kind != "SimpleNN" else expected)
    monkeypatch.setattr(export_onnx, "_lowered", lambda model: model)
    path.write_bytes(original := FORMATS["onnx"].maker(network, images[:2])({}))
    assert onnx_versions(path).opset == 18
    assert torch.equal(logits(lowest, images), logits(original, images))


def test_attributes_stay_where_they_could_matter() -> None:
    """The attribute allowzero goes where the shape is a constant without a 0, noop_with_empty_axes where it is 0."""
    shapes = {"plain": [-1, 4], "zero": [0, 4]}
    constants = [onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [2], shape) for name, shape in shapes.items()]
    nodes = [
        *(onnx.helper.make_node("Reshape", ["x", shape], [shape], allowzero=1) for shape in (*shapes, "computed")),
        *(onnx.helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0, noop_with_empty_axes=on) for on in (0, 1)),
    ]
    graph = onnx.helper.make_graph(nodes, "graph", [], [], constants)
    export_onnx._drop_attributes(graph)
    assert [{attribute.name for attribute in node.attribute} for node in graph.node] == [
        *(set(), {"allowzero"}, {"allowzero"}),
        *({"keepdims"}, {"keepdims", "noop_with_empty_axes"}),
    ]


def test_an_int8_file_names_no_domain_that_it_does_not_use(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (250, 1, 28, 28), dtype=torch.uint8)
    network = PixelNetwork(SimpleNN(), TO_UNIT)
    (tmp_path / "model.onnx").write_bytes(content := int8_maker(network, images)({"author": "me"}))
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 14)]
    assert onnx_versions(tmp_path / "model.onnx") == OnnxVersions(7, 14)
    assert [(each.key, each.value) for each in model.metadata_props] == [("author", "me")]
    wanted = network(images)
    difference = (logits(content, images) - wanted).abs().max()
    assert 0 < difference < wanted.abs().max() / 10
