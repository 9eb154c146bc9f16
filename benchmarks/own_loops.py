"""Bare PyTorch loops of the modules in tests/measuring/own_modules.py, in a process that does not import Lightning.

    python benchmarks/own_loops.py LitCNN --precision bf16-mixed --seconds 2

prints as JSON the seconds of a step, over about that time after 20 steps. `benchmarks/own_modules.py` runs it. A loop
does the same work as Lightning's: for the same seed, its losses are equal to those of the LightningModule.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import autocast
from torch.optim.lr_scheduler import LambdaLR

sys.path.append(str(Path(__file__).parents[1]))
from tests.measuring import own_networks

WARMUP = 20  # steps
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[Any], Tensor]  # takes a batch on the device, returns its loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", choices=LOOPS)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--size", type=int, default=512, help="examples in an epoch")
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    step, loader = prepared(args.module, args.precision, args.width, args.batch_size, args.size)
    print(json.dumps({"seconds": timed(step, loader, args.seconds), "lightning": "lightning" in sys.modules}))


def prepared(module: str, precision: str, width: int, batch_size: int, size: int) -> tuple[Step, Any]:
    """Return the step of a module with new weights, and its DataLoader."""
    data, make_step = LOOPS[module]
    step = make_step(width, autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16-mixed"))
    return step, own_networks.loader(data(1, size), batch_size, 0, shuffle=True)


def timed(step: Step, loader: Any, seconds: float) -> float:
    """Return the mean time of a step, with the time to get its batch."""
    batches = endless(loader)
    for _ in range(WARMUP):
        step(next(batches))
    started, steps = now(), 0
    while time.perf_counter() - started < seconds or steps < 3:
        step(next(batches))
        steps += 1
    return (now() - started) / steps


def now() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def endless(loader: Any) -> Iterator[Any]:
    """Yield the batches of all epochs, on the device."""
    while True:
        for batch in loader:
            if isinstance(batch, dict):
                yield {name: part.to(DEVICE) for name, part in batch.items()}
            else:
                yield [part.to(DEVICE) for part in batch]


def classifier(width: int, cast: autocast) -> Step:
    net = own_networks.cnn(width).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), 0.003, momentum=0.9)

    def step(batch: Any) -> Tensor:
        images, labels = batch
        optimizer.zero_grad()
        with cast:
            loss = F.cross_entropy(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def language_model(width: int, cast: autocast) -> Step:
    model = own_networks.LanguageModel(width).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003, weight_decay=0.01)
    schedule = LambdaLR(optimizer, own_networks.warm_up)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with cast:
            loss = F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


def autoencoder(width: int, cast: autocast) -> Step:
    encoder, decoder = own_networks.encoder(width).to(DEVICE), own_networks.decoder(width).to(DEVICE)
    optimizers = [torch.optim.Adam(part.parameters(), 0.001) for part in (encoder, decoder)]

    def step(batch: Any) -> Tensor:
        (vectors,) = batch
        for optimizer in optimizers:
            optimizer.zero_grad()
            with cast:  # for each loss: autocast keeps its bfloat16 weights until the end of a block, also changed ones
                loss = F.mse_loss(decoder(encoder(vectors)), vectors)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return loss.detach()

    return step


def slow_images(seed: int, size: int) -> own_networks.Images:
    return own_networks.Images(seed, size, seconds=0.002)


# data and step, by the class of the module
LOOPS: dict[str, tuple[Callable[[int, int], Any], Callable[[int, autocast], Step]]] = {
    "LitCNN": (own_networks.Images, classifier),
    "LitTransformer": (own_networks.Sentences, language_model),
    "LitAutoencoder": (own_networks.vectors, autoencoder),
    "LitSlow": (slow_images, classifier),
}

if __name__ == "__main__":
    main()
