"""The command `demo`: a local page to draw digits or letters on, which shows what a run's network reads in them."""

import signal
import sys
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import Trainer

from mnist_amp import signals
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.lightning_cli import MnistAmpCLI
from mnist_amp.errors import RequestError
from mnist_amp.images.mnist_form import SIDE as IMAGE_SIDE
from mnist_amp.inference.drawing_reader import REPEATS, SIZE, DrawingReader
from mnist_amp.inference.out_of_distribution import Reference
from mnist_amp.inference.pixel_network import DTYPES
from mnist_amp.number_types import Port
from mnist_amp.reporting import tables
from mnist_amp.runs import checkpoint_contents
from mnist_amp.training.precision import device_name, half_hardware
from mnist_amp.wording import counted

if TYPE_CHECKING:
    from mnist_amp.inference.demo_server import DemoServer

INSTALL = "pip install 'mnist-amp[demo]'"


@dataclass(frozen=True)
class Precision:
    """A precision on the demo's device.

    Attributes:
        emulated: whether the device has no instructions for matrix products in it.
    """

    emulated: bool


@dataclass(frozen=True)
class About:
    """The facts that the page shows about the network and its device.

    Attributes:
        checkpoint: its file and epochs.
        accuracy: of its weights, as its run measured it; None if it did not.
        device: name of the device.
        precisions: by name.
        repeats: inferences that a time is the median of.
        classes: names of the classes, in the order of the probabilities.
    """

    checkpoint: str
    accuracy: str | None
    device: str
    precisions: dict[str, Precision]
    repeats: int
    classes: list[str]


def describe(cli: "DemoCLI") -> About:
    """Return what the page shows about the network, and where it is computed."""
    assert cli.start is not None
    checkpoint, path = cli.start.content, cli.start.path
    done = checkpoint_contents.known_progress(checkpoint)
    trained = "weights alone" if done is None else f"after {counted(done.epochs, 'epoch')}"
    return About(
        checkpoint=f"{path} ({trained})",
        accuracy=validation_accuracy(checkpoint),
        device=device_name(cli.trainer),
        precisions={
            name: Precision(emulated=dtype.itemsize == 2 and half_hardware(cli.trainer, dtype) is False)
            for name, dtype in DTYPES.items()
        },
        repeats=REPEATS,
        classes=list(cli.datamodule.classes),
    )


def validation_accuracy(checkpoint: dict[str, Any]) -> str | None:
    """Return the accuracy of a checkpoint's weights, as its run measured it; None if it did not."""
    history = checkpoint_contents.history(checkpoint)
    found = [row.val_accuracy for row in history if row.step == checkpoint["global_step"]]
    return f"{found[-1]:.2%} on the validation images" if found and found[-1] is not None else None


def demo(cli: "DemoCLI", port: Port = 8000) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        cli: its command line
        port: port for the page on 127.0.0.1; 0 takes a free port

    Raises:
        RequestError: the port can't be used, or a package is missing.
    """
    try:
        from mnist_amp.inference.demo_server import DemoServer, listen, make_app
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise RequestError(f"demo needs {package} (not installed). Install the extra demo: {INSTALL}") from error
    # an image is too little work to share: on 2 busy cores, emulated bfloat16 took 20 ms with 2 threads, 0.06 ms with 1
    torch.set_num_threads(1)
    about = describe(cli)
    data, device = cli.datamodule, cli.trainer.strategy.root_device
    reader = DrawingReader(cli.model.model, data.normalization, device, Reference.of(cli.model.model, data))
    server = DemoServer(make_app(asdict(about), list(DTYPES), SIZE, lambda *request: asdict(reader(*request))))
    with listen(port) as listener:
        stopped_by = stop_on_signals(server)
        print_start(about, "http://{}:{}/".format(*listener.getsockname()))
        server.run([listener])
    sys.stderr.write(f"mnist-amp: stopped by {signal.Signals(stopped_by[0]).name}; the page is no longer served.\n")


def stop_on_signals(server: "DemoServer") -> list[int]:
    """Let SIGINT and SIGTERM stop the server, also before it runs; returns a list that collects the signals."""
    received = []

    def stop(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        server.should_exit = True

    signals.install_handlers(stop)
    return received


def print_start(about: About, page: str) -> None:
    lines = {"checkpoint": about.checkpoint, "accuracy": about.accuracy, "device": about.device}
    lines |= {"precisions": ", ".join(DTYPES), "page": page, "ends": "on Ctrl-C"}
    print(tables.facts({name: line for name, line in lines.items() if line}), flush=True)


class DemoCLI(CommandCLI):
    """The command line of `demo`: its own options, and those of `predict`."""

    name = "demo"
    like = "predict"
    unused: ClassVar = {"return_predictions", "weights_only"}
    function = demo

    def instantiate_classes(self) -> None:
        """Create what `predict` creates, which verifies the checkpoint and the device."""
        assert self.checkpoint is not None
        MnistAmpCLI.instantiate_classes(self)
        if (shape := self.datamodule.image_shape) != (1, IMAGE_SIDE, IMAGE_SIDE):
            raise RequestError(
                f"demo takes drawings for networks of 1 x {IMAGE_SIDE} x {IMAGE_SIDE} images; this one takes "
                f"{' x '.join(map(str, shape))}. Use `mnist-amp predict --images`."
            )
        self.model.load_state_dict(self.checkpoint["state_dict"])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self.make_trainer([], logger=False, enable_progress_bar=False, **kwargs)
        if trainer.world_size != 1:
            raise RequestError("demo uses one device; leave trainer.devices and trainer.num_nodes at 1.")
        return trainer


run = DemoCLI.run
