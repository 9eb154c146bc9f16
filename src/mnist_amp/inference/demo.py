"""The command `demo`: a local page where one draws a digit, and sees what a run's network reads in it as one draws."""

import contextlib
import signal
import statistics
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from mnist_amp import signals
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.lightning_cli import MnistAmpCLI
from mnist_amp.errors import RequestError
from mnist_amp.inference import image_files
from mnist_amp.inference.demo_server import ADDRESS, SIDE, DemoServer
from mnist_amp.inference.pixels import DTYPES, PixelNN
from mnist_amp.networks.simple_nn import SimpleNN
from mnist_amp.reporting import text
from mnist_amp.runs import checkpoint_contents
from mnist_amp.training.precision import device_name, half_hardware
from mnist_amp.wording import counted

REPEATS = 9  # inferences that a time is the median of


class Reader:
    """Reads drawings with a network, in each of the dtypes side by side.

    Args:
        model: takes normalised images.
        device: to compute on.
    """

    def __init__(self, model: SimpleNN, device: torch.device) -> None:
        self.device = device
        self.networks = {name: PixelNN(model, dtype).to(device) for name, dtype in DTYPES.items()}
        self.read(torch.zeros(1, 28, 28, dtype=torch.uint8), list(DTYPES))  # what a first call does beside computing

    def __call__(self, drawing: bytes, precisions: list[str]) -> dict[str, Any]:
        """Bring a drawing, `demo_server.SIZE` bytes of ink, into MNIST's form, and read it.

        Returns:
            `image`, 784 levels, or None if there is no ink; `readings`, see `read`; none without ink.
        """
        try:
            image = image_files.mnist_form(Image.frombytes("L", (SIDE, SIDE), drawing))
        except image_files.NoInkError:
            return {"image": None, "readings": {}}
        return {"image": image.flatten().tolist(), "readings": self.read(torch.from_numpy(image)[None], precisions)}

    @torch.inference_mode()
    def read(self, images: Tensor, precisions: list[str]) -> dict[str, Any]:
        """Read one image (1, 28, 28) uint8.

        Returns:
            for each precision the `seconds` of an inference, the `probabilities` of the ten digits, and the `guess`,
            the likeliest; where it has overflowed, as float16 can, None in the place of those.
        """
        images, readings = images.to(self.device), {}
        for name in precisions:
            logits, seconds = self._timed(self.networks[name], images)
            probabilities = logits[0].softmax(dim=0)
            finite = bool(probabilities.isfinite().all())
            readings[name] = {
                "guess": int(probabilities.argmax()) if finite else None,
                "probabilities": probabilities.tolist() if finite else None,
                "seconds": seconds,
            }
        return readings

    def _timed(self, network: PixelNN, images: Tensor) -> tuple[Tensor, float]:
        """Return the logits, and the seconds from the image on the device to them: the median of several times."""
        seconds = []
        for _ in range(REPEATS):
            started = self._now()
            logits = network(images)
            seconds.append(self._now() - started)
        return logits, statistics.median(seconds)

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def described(cli: "DemoCLI") -> dict[str, Any]:
    """Return what the page says of the network and of where it computes."""
    checkpoint, path = cli.checkpoint, cli.config["predict"].ckpt_path
    assert checkpoint is not None
    emulated = {name: dtype.itemsize == 2 and not half_hardware(cli.trainer, dtype) for name, dtype in DTYPES.items()}
    return {
        "checkpoint": f"{path} (after {counted(checkpoint_contents.progress(checkpoint).epochs, 'epoch')})",
        "accuracy": validated(checkpoint),
        "device": device_name(cli.trainer),
        "precisions": {name: {"emulated": found} for name, found in emulated.items()},
        "repeats": REPEATS,
    }


def validated(checkpoint: dict[str, Any]) -> str | None:
    """Return the accuracy of a checkpoint's weights, as its run has measured it; None if it has not."""
    history = checkpoint_contents.history(checkpoint)
    found = [row.val_accuracy for row in history if row.step == checkpoint["global_step"]]
    return f"{found[-1]:.2%} on the validation images" if found and found[-1] is not None else None


def demo(cli: "DemoCLI", port: int = 8000) -> None:
    """Serve the page until a signal comes.

    Args:
        cli: its command line
        port: port of 127.0.0.1 to serve the page at; 0 takes one that is free

    Raises:
        RequestError: the port can't be had.
    """
    # an image is too little work to be shared: with bfloat16 emulated, 2 threads on 2 busy cores took 20 ms for it, and
    # one 0.06
    torch.set_num_threads(1)
    about = described(cli)
    reader = Reader(cli.model.model, cli.trainer.strategy.root_device)
    server = DemoServer(port, about, list(DTYPES), reader)
    stop: SimpleQueue[int] = SimpleQueue()  # which, of all that wakes a thread, a signal's handler may use
    signals.install_handlers(lambda signum, frame: stop.put(signum))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    lines = {key: about[key] for key in ("checkpoint", "accuracy", "device") if about[key]}
    lines["precisions"] = ", ".join(DTYPES)
    print(text.facts(lines | {"page": f"http://{ADDRESS}:{server.port}/", "ends": "on Ctrl-C"}), flush=True)
    signum = _awaited(stop)
    server.stop()
    sys.stderr.write(f"mnist-amp: stopped by {signal.Signals(signum).name}; the page is served no more.\n")


def _awaited(stop: SimpleQueue[int]) -> int:
    """Wait for a signal's number, looking up now and then: one that comes as the wait begins would not end it."""
    while True:
        with contextlib.suppress(Empty):
            return stop.get(timeout=0.5)


class DemoCLI(CommandCLI):
    """The command line of `demo`: the options of `predict`, and its own."""

    name = "demo"
    like = "predict"
    unused: ClassVar = {"return_predictions", "weights_only"}
    function = demo

    def instantiate_classes(self) -> None:
        """Make what `predict` does, which verifies the checkpoint and the device."""
        assert self.checkpoint is not None
        MnistAmpCLI.instantiate_classes(self)
        self.model.load_state_dict(self.checkpoint["state_dict"])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self.make_trainer([], logger=False, enable_progress_bar=False, **kwargs)
        if trainer.world_size != 1:
            raise RequestError("demo reads on one device; leave trainer.devices and trainer.num_nodes at 1.")
        return trainer


run = DemoCLI.run
