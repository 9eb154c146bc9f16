"""The programs that `mnist-amp fit` is compared with. Each trains SimpleNN on all 60,000 images with Adam at 0.001.

    python benchmarks/contenders.py guide --epochs 1 --weights guide.pth

trains in this process, saves the weights, and prints as JSON the seconds of training (without start-up), the peak
memory of the device, and whether the process has imported Lightning. `benchmarks/speed.py` runs all of them.

Importing Lightning makes each optimizer step of torch slower on a machine without a GPU, because torch then looks for a
driver. So the programs that do not use Lightning must not import it, nor `mnist_amp.data`, which does.
"""

import argparse
import copy
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler, autocast
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import compiled_loop
from mnist_amp.networks.simple_nn import SimpleNN

BLOCK = 256  # images that are gathered together; the fastest of 64 to 4096 on a CPU with 1 MB of cache for a core
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def guide(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """The guide's listing, with `torch.amp` instead of deprecated names, and on any device."""
    device, dtype = torch.device(settings.device), DTYPES[settings.precision]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    train_dataset = datasets.MNIST(root=str(settings.data_dir), train=True, download=True, transform=transform)
    train_loader = DataLoader(train_dataset, batch_size=settings.batch_size, shuffle=True)
    model = SimpleNN(settings.hidden_dim).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    scaler = GradScaler(device.type, enabled=dtype == torch.float16)
    started = time.perf_counter()
    for _ in range(settings.epochs):
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                outputs = model(images)
                loss = criterion(outputs, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    synchronize(device)
    return model, time.perf_counter() - started


def lightning(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """A LightningModule and a DataLoader as in Lightning's documentation, with Lightning's defaults."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(root=str(settings.data_dir), train=True, download=True, transform=transform)
    return plain(settings, lambda _: DataLoader(dataset, batch_size=settings.batch_size, shuffle=True))


def memory(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """The same module, with this project's loader of images in the memory of the device."""
    return plain(settings, lambda trainer: batches_in_memory(settings, trainer))


def quiet(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """The same as `memory`, without logs in a step and without a progress bar."""
    return plain(settings, lambda trainer: batches_in_memory(settings, trainer), verbose=False)


def batches_in_memory(settings: argparse.Namespace, trainer: Any) -> Iterable[Any]:
    from mnist_amp.data import mnist
    from mnist_amp.data.loader import ShuffledLoader

    mnist.prepare(settings.data_dir)
    images, labels = (part.to(settings.device) for part in mnist.load(settings.data_dir, train=True))
    images = images.unsqueeze(1)  # (N, C, H, W)
    every = torch.arange(len(labels))

    def position() -> tuple[int, int]:
        return trainer.current_epoch, (trainer.fit_loop.batch_idx + 1) * settings.batch_size

    return ShuffledLoader(images, labels, every, settings.batch_size, position, settings.seed)


def plain(
    settings: argparse.Namespace, loader: Callable[[Any], Iterable[Any]], *, verbose: bool = True
) -> tuple[nn.Module, float]:
    """Train a plain LightningModule.

    Args:
        settings: the options of the command line.
        loader: makes the batches, given the Trainer.
        verbose: whether each step is logged and the progress bar is shown.
    """
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Timer

    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = SimpleNN(settings.hidden_dim)

        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
            images, labels, *_ = batch
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels)
            if verbose:
                self.log("train_loss", loss, prog_bar=True)
                self.log("train_accuracy", (logits.argmax(dim=1) == labels).float().mean(), prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.001)

    module, timer = Plain(), Timer()
    accelerator = "gpu" if settings.device == "cuda" else "cpu"
    trainer = Trainer(
        max_epochs=settings.epochs,
        precision=settings.precision,
        accelerator=accelerator,
        devices=1,
        callbacks=[timer],
        enable_progress_bar=verbose,
        default_root_dir=settings.weights.parent,
    )
    trainer.fit(module, loader(trainer))
    return module.model.cpu(), timer.time_elapsed("train")


def bound(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """A loop without a framework and without logs, as a lower bound: batches in the cheapest way found, fused Adam.

    On a CUDA device the complete step is captured as a CUDA graph. The clock starts after the capture. The times of
    `mnist-amp fit` include its capture, which is a small part of many epochs.
    """
    device, dtype = torch.device(settings.device), DTYPES[settings.precision]
    images, labels = (part.to(device) for part in mnist(settings))
    model = SimpleNN(settings.hidden_dim).to(device)
    is_cuda = device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True, capturable=is_cuda)
    scaler = GradScaler(device.type) if dtype == torch.float16 else None
    # one for all steps, because it is slow to make; the cache of casts costs more than it saves
    precision = nullcontext() if dtype == torch.float32 else autocast(device.type, dtype=dtype, cache_enabled=False)
    parameters = list(model.parameters())

    def step(images: Tensor, labels: Tensor) -> None:
        with precision:
            loss = F.cross_entropy(model(images), labels)
        for parameter in parameters:  # faster than `zero_grad`
            parameter.grad = None
        if scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()

    train = in_graphs if is_cuda else in_blocks
    epoch = train(step, images, labels, settings.batch_size, model, optimizer)
    gc.disable()  # or the garbage collector searches all objects of torch again and again
    started = time.perf_counter()
    for _ in range(settings.epochs):
        epoch()
    synchronize(device)
    return model, time.perf_counter() - started


Step = Callable[[Tensor, Tensor], None]


def mnist(settings: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the training images (60000, 28, 28) uint8 and their labels."""
    dataset = datasets.MNIST(root=str(settings.data_dir), train=True, download=True)
    return dataset.data, dataset.targets


def in_blocks(step: Step, images: Tensor, labels: Tensor, batch_size: int, *_: Any) -> Callable[[], None]:
    """Return what trains an epoch on a CPU: images are gathered and normalised in blocks that its cache can hold."""

    def epoch() -> None:
        for batch in batches(images, labels, batch_size):
            step(*batch)

    return epoch


def batches(images: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch: images (N, 28, 28) from -1 to 1, and labels (N,)."""
    for indices in torch.split(torch.randperm(len(labels)), max(BLOCK // batch_size, 1) * batch_size):
        block = images.index_select(0, indices).float().div_(127.5).sub_(1)
        parts = (torch.split(part, batch_size) for part in (block, labels.index_select(0, indices)))
        yield from zip(*parts, strict=True)


def in_graphs(
    step: Step, images: Tensor, labels: Tensor, batch_size: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """Return what trains an epoch on a CUDA device, by a graph that gathers a batch of normalised images and trains."""
    normalised, begin = images.float().div_(127.5).sub_(1), copy.deepcopy(model.state_dict())
    take = captured(lambda indices: step(normalised[indices], labels[indices]), batch_size, images.device)
    model.load_state_dict(begin)
    for state in optimizer.state.values():  # as before the warm-up
        for value in state.values():
            value.zero_()

    def epoch() -> None:
        for indices in torch.split(torch.randperm(len(labels)).to(images.device), batch_size):
            take(indices)

    return epoch


def captured(step: Callable[[Tensor], None], batch_size: int, device: torch.device) -> Callable[[Tensor], None]:
    """Capture a step on full batches as a CUDA graph, after warm-up steps; smaller batches are not replayed."""
    static = torch.arange(batch_size, device=device)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(static)

    def take(indices: Tensor) -> None:
        if len(indices) == batch_size:
            static.copy_(indices)
            graph.replay()
        else:
            step(indices)

    return take


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compiled(settings: argparse.Namespace) -> tuple[nn.Module, float]:
    """The lower bound on a CPU with the complete step compiled, before the clock starts."""
    model, seconds, settings.compile_seconds = compiled_loop.compiled(settings)
    return model, seconds


PROGRAMS = (guide, lightning, memory, quiet, bound, compiled)
CONTENDERS = {program.__name__: program for program in PROGRAMS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--hidden_dim", type=int, default=128)
    parser.add_argument("--precision", choices=list(DTYPES), default="32-true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path("data"),
        help="has MNIST, as `mnist-amp fit` leaves it; or it is downloaded",
    )
    parser.add_argument("--weights", type=Path, default=Path("model.pth"), help="file to save the weights in")
    settings = parser.parse_args()
    torch.manual_seed(settings.seed)
    model, seconds = CONTENDERS[settings.contender](settings)
    torch.save(model.cpu().state_dict(), settings.weights)
    peak = torch.cuda.max_memory_allocated() if settings.device == "cuda" else None
    has_lightning = "lightning" in sys.modules
    compiling = getattr(settings, "compile_seconds", None)
    results = {"seconds": seconds, "compile_seconds": compiling, "peak_device_bytes": peak}
    print(json.dumps({**results, "imports_lightning": has_lightning}))


if __name__ == "__main__":
    main()
