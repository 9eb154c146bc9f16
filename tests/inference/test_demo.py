"""`mnist-amp demo`: the command, from its start to its stop."""

import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageOps

from mnist_amp.images.mnist_form import mnist_form
from mnist_amp.inference import demo
from mnist_amp.inference.demo_server import DemoServer, listen, make_app
from mnist_amp.inference.drawing_reader import SIDE
from mnist_amp.inference.pixel_network import DTYPES
from strokes import draw_digit
from tests.conftest import Refused, Run, started
from tests.inference.test_demo_server import BINARY, ask

SEVEN = ImageOps.invert(draw_digit(7, SIDE, 22))
ALL = "/read?" + "&".join(f"precision={name}" for name in DTYPES)


def test_validation_accuracy() -> None:
    history = [
        {"epoch": 0, "step": 5, "val_accuracy": 0.5},
        {"epoch": 1, "step": 10, "val_accuracy": 0.96604},
        {"epoch": 2, "step": 15, "train_loss": 0.1},
    ]
    for step, wanted in ((10, "96.60% on the validation images"), (15, None), (12, None)):
        checkpoint = {"global_step": step, "callbacks": {"RunCheckpoint": {"history": history}}}
        assert demo.validation_accuracy(checkpoint) == wanted
    assert demo.validation_accuracy({"global_step": 10}) is None


def test_refused_without_a_run(refused: Refused, tmp_path: Path) -> None:
    assert refused("demo") == (
        f"mnist-amp: error: there is no run with a checkpoint under {tmp_path / 'lightning_logs'}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("checkpoint")
def test_refused_in_one_line(refused: Refused, kept: Path) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        for args, message in [
            (("--port=65536",), "port is 65536; it must be at most 65535. See mnist-amp demo --help."),
            (("--port=http",), "port can't be http; it takes int. See mnist-amp demo --help."),
            (
                (f"--port={port}",),
                f"port {port} is already in use. Choose another with --port; 0 takes a free port.",
            ),
            (
                ("--ckpt_path=null",),
                "ckpt_path is null, but demo needs a checkpoint; leave it out for the newest run's best. "
                "See mnist-amp demo --help.",
            ),
            (("--trainer.devices=2",), "demo uses one device; leave trainer.devices and trainer.num_nodes at 1."),
            (
                ("--network.hidden_dim=3",),
                f"{kept} holds another network (checkpoint -> now): network.hidden_dim 128 -> 3. Leave "
                "network.hidden_dim out, or start without this checkpoint.",
            ),
        ]:
            assert refused("demo", f"--ckpt_path={kept}", *args) == f"mnist-amp: error: {message}\n"


def test_refused_for_other_images(run: Run, refused: Refused) -> None:
    run("fit", "--config=smoke.yaml", "--data.image_size=32", "--data.channels=3", "--trainer.max_steps=1")
    assert refused("demo", "--port=0") == (
        "mnist-amp: error: demo takes drawings for networks of 1 x 28 x 28 images; this one takes 3 x 32 x 32. Use "
        "`mnist-amp predict --images`.\n"
    )


def test_the_page_gets_the_names_of_the_classes(run: Run, tmp_path: Path) -> None:
    for part, name in itertools.product(("train", "test"), ("alpha", "beta", "gamma")):
        Path("letters", part, name).mkdir(parents=True)
        for number in range(8):
            ImageOps.invert(draw_digit(number, 28, 2)).save(f"letters/{part}/{name}/{number}.png")
    run("fit", "--data.folder=letters", "--data.batch_size=4", "--trainer.max_epochs=1", "--trainer.logger=false")
    with started("demo", "--port=0", cwd=tmp_path) as process:
        assert process.stdout is not None
        page = next(line.split()[1] for line in process.stdout if line.startswith("page "))
        port = int(page.rstrip("/").rpartition(":")[2])
        assert json.loads(ask(port, "GET", "/about")[2])["classes"] == ["alpha", "beta", "gamma"]
        answer = json.loads(ask(port, "POST", ALL, SEVEN.tobytes(), **BINARY)[2])
        assert [len(reading["probabilities"]) for reading in answer["readings"].values()] == [3, 3, 3]


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_reported_with_the_extra(
    refused: Refused, kept: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "mnist_amp.inference.demo_server")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert refused("demo", f"--ckpt_path={kept}") == (
        f"mnist-amp: error: demo needs {package} (not installed). "
        "Install the extra demo: pip install 'mnist-amp[demo]'\n"
    )


@pytest.mark.usefixtures("checkpoint")
def test_stops_within_a_request(tmp_path: Path, kept: Path) -> None:
    with started("demo", "--port=0", f"--ckpt_path={kept}", cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = dict(re.split(r"  +", process.stdout.readline().strip(), maxsplit=1) for _ in range(6))
        port = int(lines["page"].rstrip("/").rpartition(":")[2])
        assert lines.pop("device").startswith("CPU (")
        assert re.fullmatch(r"[\d.]+% on the validation images", lines.pop("accuracy"))
        assert lines == {
            "checkpoint": f"{kept} (after 1 epoch)",
            "precisions": "float32, float16, bfloat16",
            "page": f"http://127.0.0.1:{port}/",
            "ends": "on Ctrl-C",
        }
        about = json.loads(ask(port, "GET", "/about")[2])
        assert list(about) == ["checkpoint", "accuracy", "device", "precisions", "repeats", "classes"]
        assert about["classes"] == list("0123456789")
        assert about["precisions"]["float32"] == {"emulated": False}
        answer = json.loads(ask(port, "POST", ALL, SEVEN.tobytes(), **BINARY)[2])
        assert answer["image"] == mnist_form(SEVEN).flatten().tolist()
        assert list(answer["readings"]) == list(DTYPES)
        assert list(answer["readings"]["float16"]) == ["guess", "probabilities", "seconds"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Length: 78400\r\nExpect: 100-continue\r\n\r\n" % port
            )
            assert client.recv(12) == b"HTTP/1.1 100"  # the server waits for the body
            client.sendall(b"half")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            with socket.create_server(("127.0.0.1", port)):
                pass  # the port is free at once
        assert process.communicate() == ("", "mnist-amp: stopped by SIGTERM; the page is no longer served.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """Return a server that does not run yet. The signal handlers are restored after the test."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield DemoServer(make_app({}, [], 1, lambda drawing, precisions: {}))
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_server_runs_stops_it(server: DemoServer, signum: signal.Signals) -> None:
    received = demo.stop_on_signals(server)
    signal.raise_signal(signum)
    with listen(0) as listener:
        server.run([listener])
    assert received == [signum]


def test_an_ignored_signal_stays_ignored(server: DemoServer) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    received = demo.stop_on_signals(server)

    def send(port: int) -> None:
        assert ask(port, "GET", "/about")[0] == 200
        for signum in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), signum)

    with listen(0) as listener:
        thread = threading.Thread(target=send, args=listener.getsockname()[1:])
        thread.start()
        server.run([listener])
        thread.join()
    assert received == [signal.SIGTERM]
