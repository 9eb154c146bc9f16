"""A hand-written loop whose whole step is compiled by inductor: the lower bound of `mnist-amp fit --compile`.

Nothing of Lightning is imported, because that makes every optimizer step of torch slower, see `contenders.py`.
"""

import argparse
import gc
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import datasets

from mnist_amp.networks.simple_nn import SimpleNN

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8


def compiled(settings: argparse.Namespace) -> tuple[nn.Module, float, float]:
    """Train SimpleNN by Adam: each step is one function, which gathers a batch, and updates the weights in place.

    Without guards, which torch otherwise checks before each call, and with the corrections of Adam as numbers that are
    computed once in a step, it is the fastest of the forms that were tried: with guards it takes 1.08 times as long,
    with `cpp_wrapper` 1.02 times, and 1.5 times if the corrections are part of the compiled code.

    Args:
        settings: hidden_dim, batch_size, precision (32-true or bf16-mixed), epochs and data_dir, as in `contenders`;
            the unpacked files of MNIST must be in `data_dir`.

    Returns:
        The trained network, the seconds of training, and the seconds of compiling before it.
    """
    raw = datasets.MNIST(root=str(settings.data_dir), train=True, download=False)
    images, labels = (raw.data.float() / 255 - 0.5) / 0.5, raw.targets
    model = SimpleNN(settings.hidden_dim)
    take = _compiled_step(model, images.reshape(-1, 1, 28, 28), labels, DTYPES[settings.precision])
    started = time.perf_counter()
    for size in {settings.batch_size, len(labels) % settings.batch_size or settings.batch_size}:
        take(torch.arange(size), 0)
    compiling = time.perf_counter() - started
    gc.disable()
    started, number = time.perf_counter(), 0
    for _ in range(settings.epochs):
        for indices in torch.split(torch.randperm(len(labels)), settings.batch_size):
            number += 1
            take(indices, number)
    return model, time.perf_counter() - started, compiling


def _compiled_step(
    model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype
) -> Callable[[Tensor, int], None]:
    """Return a function that takes step `number`, from 1, on the images with some indices. Number 0 changes nothing."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    means, squares = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))

    def loss_of(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return F.cross_entropy(torch.func.functional_call(model, weights, (images,)), labels)

    def new_function() -> Callable[[Tensor, Tensor], None]:
        def step(indices: Tensor, numbers: Tensor) -> None:
            gradients = torch.func.grad(loss_of)(weights, images[indices], labels[indices])
            for name, gradient in gradients.items():
                mean, square = means[name], squares[name]
                mean.lerp_(gradient, numbers[2])
                square.lerp_(gradient * gradient, numbers[3])
                weights[name].sub_(numbers[0] * mean / (square.sqrt() * numbers[1] + EPS))

        # torch keeps compiled functions by their code object; without guards it would not look at the size
        step.__code__ = step.__code__.replace()
        options: dict[str, str | int | bool | Callable[..., Any]]
        options = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        compiled: Callable[[Tensor, Tensor], None] = torch.compile(step, fullgraph=True, dynamic=False, options=options)
        return compiled

    functions: dict[int, Callable[[Tensor, Tensor], None]] = {}

    def take(indices: Tensor, number: int) -> None:
        if len(indices) not in functions:
            functions[len(indices)] = new_function()
        shares = [1 - beta for beta in BETAS] if number else [0.0, 0.0]
        first, second = (1 - beta ** max(number, 1) for beta in BETAS)
        functions[len(indices)](indices, torch.tensor([LR / first, 1 / math.sqrt(second), *shares]))

    return take
