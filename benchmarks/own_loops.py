"""Bare PyTorch loops of the modules in tests/measuring/own_modules.py, in a process that does not import Lightning.

    python benchmarks/own_loops.py LitCNN --precision bf16-mixed --seconds 2

prints as JSON the seconds of a step, over about that time after 20 steps. `benchmarks/own_modules.py` runs it.
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
from torch.amp import autocast
from torch.optim.lr_scheduler import LambdaLR

sys.path.append(str(Path(__file__).parents[1]))
from tests.measuring import own_networks

WARMUP = 20  # steps
Step = Callable[[Any], None]


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
    data, make_step = LOOPS[args.module]
    loader = own_networks.loader(data(1, args.size), args.batch_size, 0, shuffle=True)
    step = make_step(args.width, autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16-mixed"))
    print(json.dumps({"seconds": timed(step, loader, args.seconds), "lightning": "lightning" in sys.modules}))


def timed(step: Step, loader: Any, seconds: float) -> float:
    """Return the mean time of a step, with the time to get its batch."""
    batches = endless(loader)
    for _ in range(WARMUP):
        step(next(batches))
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or steps < 3:
        step(next(batches))
        steps += 1
    return (time.perf_counter() - started) / steps


def endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def classifier(width: int, cast: autocast) -> Step:
    net = own_networks.cnn(width)
    optimizer = torch.optim.SGD(net.parameters(), 0.003, momentum=0.9)

    def step(batch: Any) -> None:
        images, labels = batch
        optimizer.zero_grad()
        with cast:
            loss = F.cross_entropy(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def language_model(width: int, cast: autocast) -> Step:
    model = own_networks.LanguageModel(width)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003, weight_decay=0.01)
    schedule = LambdaLR(optimizer, own_networks.warm_up)

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        with cast:
            loss = F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def autoencoder(width: int, cast: autocast) -> Step:
    encoder, decoder = own_networks.encoder(width), own_networks.decoder(width)
    optimizers = [torch.optim.Adam(part.parameters(), 0.001) for part in (encoder, decoder)]

    def step(batch: Any) -> None:
        (vectors,) = batch
        with cast:  # around both passes, as Lightning's around the training_step
            for optimizer in optimizers:
                optimizer.zero_grad()
                loss = F.mse_loss(decoder(encoder(vectors)), vectors)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

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
