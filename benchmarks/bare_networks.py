"""A bare PyTorch loop that trains a bigger network, in a process that does not import Lightning.

    python benchmarks/bare_networks.py CNN --precision bf16-mixed --steps 900

prints as JSON the seconds of training, without start-up, and the mean loss. `benchmarks/bigger_networks.py` runs it.
The images are normalised before the clock starts; the optimizer is fused Adam at 0.001; nothing is logged.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.models import resnet18

from colour_images import ColourImages
from mnist_amp.networks import CNN, ViT

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def digits(data_dir: Path) -> tuple[Tensor, Tensor]:
    dataset = MNIST(str(data_dir), train=True)
    return dataset.data.unsqueeze(1), dataset.targets


def colours(data_dir: Path) -> tuple[Tensor, Tensor]:
    dataset = ColourImages(str(data_dir))
    return dataset.images, dataset.labels


# network and images, (N, C, H, W) uint8 and (N,)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Path], tuple[Tensor, Tensor]]]] = {
    "CNN": (CNN, digits),
    "ViT": (ViT, digits),
    "ResNet-18": (lambda: resnet18(num_classes=10), colours),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--precision", choices=DTYPES, default="32-true")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--channels_last", action="store_true", help="memory format of the weights and the images")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    make, read = NETWORKS[args.network]
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    images, labels = read(args.data_dir)
    images = images.float().div_(255).sub_(0.5).div_(0.5).to(DEVICE, memory_format=layout)
    network = make().to(DEVICE, memory_format=layout)  # type: ignore[call-overload]
    seconds, loss = trained(network, images, labels.to(DEVICE), args.batch_size, args.steps, DTYPES[args.precision])
    print(json.dumps({"seconds": seconds, "loss": loss, "lightning": "lightning" in sys.modules}))


def trained(
    network: nn.Module, images: Tensor, labels: Tensor, batch_size: int, steps: int, dtype: torch.dtype
) -> tuple[float, float]:
    """Train a network, and return the seconds and the mean of the losses of all steps."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, fused=True)
    losses = []
    started = time.perf_counter()
    for _, indices in zip(range(steps), shuffled(len(labels), batch_size), strict=False):
        with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(images.index_select(0, indices)), labels.index_select(0, indices))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    mean = float(torch.stack(losses).mean())  # waits for the device
    return time.perf_counter() - started, mean


def shuffled(number: int, batch_size: int) -> Iterator[Tensor]:
    """Yield the indices of batches without end, each image once an epoch."""
    while True:
        yield from torch.split(torch.randperm(number).to(DEVICE), batch_size)


if __name__ == "__main__":
    main()
