"""The computation of a network as a `torch.export` program, for the formats that hold it."""

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mnist_amp.torch_internals import METADATA_ASSERT


def trace(network: nn.Module, example: Tensor) -> ExportedProgram:
    """Return the program of a network for any number of images.

    Args:
        network: takes images (N, C, H, W).
        example: two images. A graph that was traced with one image would take only one.
    """
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    for node in program.graph.find_nodes(op="call_function", target=METADATA_ASSERT):
        program.graph.erase_node(node)  # an assertion that the device is a CPU
    return program
