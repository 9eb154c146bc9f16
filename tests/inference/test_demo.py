"""`mnist-amp demo` without a browser: what its server answers, what it refuses, and how it stops."""

import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageOps

from mnist_amp.inference import demo, demo_server, image_files
from mnist_amp.inference.demo_server import PAGE, SIDE, SIZE, DemoServer, Handler
from mnist_amp.inference.pixels import DTYPES, PixelNN
from mnist_amp.networks.simple_nn import SimpleNN
from strokes import picture
from tests.conftest import Refused, started

BINARY = {"Content-Type": "application/octet-stream"}
ABOUT = {"checkpoint": "best.ckpt"}
SEVEN = ImageOps.invert(picture(7, SIDE, 22))
ALL = "/read?" + "&".join(f"precision={name}" for name in DTYPES)


def network() -> SimpleNN:
    torch.manual_seed(0)
    return SimpleNN(16)


@contextmanager
def serving() -> Iterator[DemoServer]:
    server = DemoServer(0, ABOUT, list(DTYPES), demo.Reader(network(), torch.device("cpu")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with serving() as server:
        yield server


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Make a request; returns status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def read(server: DemoServer, path: str, drawing: bytes) -> dict[str, Any]:
    status, _, content = ask(server.port, "POST", path, drawing, **BINARY)
    assert status == 200, content
    answer: dict[str, Any] = json.loads(content)
    return answer


def said(server: DemoServer, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes that no client would, and all there are; returns status and content of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        head, _, content = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def test_page(server: DemoServer) -> None:
    status, headers, content = ask(server.port, "GET", "/")
    assert (status, content) == (200, PAGE.read_bytes())
    del headers["Date"]
    assert dict(headers) == {
        "Server": "mnist-amp ",
        "Content-Type": "text/html; charset=utf-8",
        "Content-Length": str(PAGE.stat().st_size),
        "Content-Security-Policy": demo_server.policy(PAGE.read_text(encoding="utf-8")),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def test_the_page_names_nothing_elsewhere() -> None:
    assert re.findall(r"https?:|//\w+\.|@import|url\(|src=", PAGE.read_text(encoding="utf-8")) == []


def test_policy() -> None:
    assert demo_server.policy("<style>a</style><script>b</script>") == (
        "default-src 'none'; script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='; "
        "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def test_about(server: DemoServer) -> None:
    status, headers, content = ask(server.port, "GET", "/about")
    assert (status, headers["Content-Type"], json.loads(content)) == (200, "application/json", ABOUT)


def test_reads_what_the_network_does(server: DemoServer) -> None:
    answer = read(server, ALL, SEVEN.tobytes())
    image = image_files.mnist_form(SEVEN)
    assert answer["image"] == image.flatten().tolist()
    assert list(answer["readings"]) == list(DTYPES)
    for name, reading in answer["readings"].items():
        with torch.inference_mode():
            wanted = PixelNN(network(), DTYPES[name])(torch.from_numpy(image)[None])[0].softmax(dim=0)
        assert reading["probabilities"] == wanted.tolist()
        assert abs(sum(reading["probabilities"]) - 1) < 1e-6
        assert reading["guess"] == wanted.argmax().item()
        assert 0 < reading["seconds"] < 1


def test_an_overflow_is_no_guess() -> None:
    model = network()
    with torch.no_grad():
        model.fc2.weight.mul_(1e6)
    readings = demo.Reader(model, torch.device("cpu"))(SEVEN.tobytes(), ["float16", "bfloat16"])["readings"]
    assert (readings["float16"]["guess"], readings["float16"]["probabilities"]) == (None, None)
    assert readings["bfloat16"]["probabilities"][readings["bfloat16"]["guess"]] == 1


@pytest.mark.parametrize(
    ("path", "precisions"),
    [("/read", []), ("/read?precision=float16", ["float16"]), ("/read?precision=bfloat16&precision=float32&x=1", 2)],
)
def test_reads_in_what_is_asked_for(server: DemoServer, path: str, precisions: list[str] | int) -> None:
    answer = read(server, path, SEVEN.tobytes())
    assert list(answer["readings"]) == (["float32", "bfloat16"] if precisions == 2 else precisions)


def test_no_ink(server: DemoServer) -> None:
    assert read(server, ALL, bytes(SIZE)) == {"image": None, "readings": {}}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("GET", "/", {"Host": "evil.example"}, 403, "this is http://127.0.0.1:{port}/, and answers to no other name"),
        ("GET", "/", {"Host": "127.0.0.1:1"}, 403, "this is http://127.0.0.1:{port}/, and answers to no other name"),
        ("POST", ALL, {"Origin": "http://evil.example"}, 403, "another page asks; only this one's own may"),
        ("POST", ALL, {"Origin": "https://127.0.0.1:{port}"}, 403, "another page asks; only this one's own may"),
        ("POST", ALL, {"Origin": "null"}, 403, "another page asks; only this one's own may"),
        ("GET", "/demo.html", {}, 404, "there are /, /about, /read and nothing else"),
        ("GET", "/../demo.py", {}, 404, "there are /, /about, /read and nothing else"),
        ("GET", "/read", {}, 405, "/read takes POST"),
        ("POST", "/", {}, 405, "/ takes GET"),
        ("PUT", "/read", {}, 501, "Unsupported method ('PUT')"),
        ("OPTIONS", "/read", {}, 501, "Unsupported method ('OPTIONS')"),
        ("POST", "/read?precision=int8", BINARY, 400, "precision is one or several of float32, float16, bfloat16"),
        ("POST", "/read?" + "&" * 99, BINARY, 400, "precision is one or several of float32, float16, bfloat16"),
        ("POST", ALL, {"Content-Length": "-1"}, 400, "Content-Length is not a number"),
        ("POST", ALL, {"Content-Length": "7e4"}, 400, "Content-Length is not a number"),
        ("POST", ALL, {"Content-Length": "9" * 5000}, 400, "Content-Length is not a number"),
        ("POST", ALL, {"Content-Length": "78401"}, 413, "a drawing has 78400 bytes"),
        ("POST", ALL, {"Content-Length": "9" * 18}, 413, "a drawing has 78400 bytes"),  # before any of it was sent
        ("POST", ALL, {"Content-Length": "0"}, 400, "a drawing is 78400 bytes of application/octet-stream"),
        ("POST", ALL, {"Transfer-Encoding": "chunked"}, 411, "the request must say its length"),
    ],
)
def test_refuses(
    server: DemoServer, method: str, path: str, headers: dict[str, str], status: int, message: str
) -> None:
    given = {name.replace("-", "_"): value.format(port=server.port) for name, value in headers.items()}
    found, answered, content = ask(server.port, method, path, None, **given)
    assert (found, json.loads(content)) == (status, {"error": message.format(port=server.port)})
    assert answered["Connection"] == "close"
    assert answered["Content-Security-Policy"].startswith("default-src 'none'; ")


def test_refuses_bodies(server: DemoServer) -> None:
    for body, headers, status in [
        (bytes(SIZE - 1), BINARY, 400),
        (bytes(SIZE), {"Content-Type": "image/png"}, 400),
        (bytes(3_000_000), BINARY, 413),  # the client can read why, although it is still sending
    ]:
        assert ask(server.port, "POST", ALL, body, **headers)[0] == status


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{port}", "http://localhost:{port}"])
def test_answers_its_own_page(server: DemoServer, origin: str) -> None:
    own = origin.format(port=server.port)
    assert ask(server.port, "POST", ALL, bytes(SIZE), Origin=own, Host=own[7:], **BINARY)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"nonsense\r\n\r\n", 400, None),  # in words of http.server's, which differ with Python's version
        (b"GET / HTTP/9.9\r\n\r\n", 505, None),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414, None),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431, None),
        (b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", 411, "the request must say its length"),
        (
            b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 78400\r\n\r\nhalf",
            400,
            "a drawing is 78400 bytes of application/octet-stream",
        ),
    ],
)
def test_refuses_what_no_browser_sends(server: DemoServer, sent: bytes, status: int, message: str | None) -> None:
    found, content = said(server, sent % server.port if b"%d" in sent else sent)
    assert (found, list(content)) == (status, ["error"])
    assert message in (None, content["error"])


def test_head_has_no_body(server: DemoServer) -> None:
    assert ask(server.port, "HEAD", "/")[::2] == (501, b"")


def test_a_connection_that_says_nothing_is_closed(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.1)
    for request in (
        b"",
        b"GET / HT",
        b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 9\r\n\r\n" % server.port,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(request)
            assert client.recv(1) == b""


def test_has_room_for_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_server, "MOST_CONNECTIONS", 1)
    with serving() as server, socket.create_connection(("127.0.0.1", server.port)) as first:
        first.sendall(b"GET /about HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
        assert first.recv(12) == b"HTTP/1.1 200"
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as second:
            assert second.recv(1) == b""
        first.shutdown(socket.SHUT_WR)
        assert first.makefile("rb").read()[-1:] == b"}"


def test_a_failure_is_said_here_and_the_server_goes_on(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(drawing: bytes, precisions: list[str]) -> dict[str, Any]:
        raise KeyError("a secret")

    with monkeypatch.context() as failing:
        failing.setattr(server, "answer", fails)
        status, _, content = ask(server.port, "POST", ALL, bytes(SIZE), **BINARY)
    assert (status, json.loads(content)) == (500, {"error": "the request failed; see where mnist-amp demo runs"})
    assert capsys.readouterr().err == "mnist-amp: warning: a request failed: KeyError: 'a secret'\n"
    assert read(server, ALL, bytes(SIZE))["image"] is None


def test_reads_one_drawing_at_a_time(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    both, alone = threading.Barrier(2), threading.Event()

    def answer(drawing: bytes, precisions: list[str]) -> dict[str, Any]:
        try:
            both.wait(timeout=0.2)
        except threading.BrokenBarrierError:
            alone.set()
        return {}

    monkeypatch.setattr(server, "answer", answer)
    threads = [threading.Thread(target=read, args=(server, ALL, bytes(SIZE))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone.is_set()


def test_validated() -> None:
    history = [{"step": 5, "val_accuracy": 0.5}, {"step": 10, "val_accuracy": 0.96604}, {"step": 15, "train_loss": 0.1}]
    for step, wanted in ((10, "96.60% on the validation images"), (15, None), (12, None)):
        checkpoint = {"global_step": step, "callbacks": {"RunCheckpoint": {"history": history}}}
        assert demo.validated(checkpoint) == wanted
    assert demo.validated({"global_step": 10}) is None


def test_no_run_there(refused: Refused, tmp_path: Path) -> None:
    assert refused("demo") == (
        f"mnist-amp: error: there is no run with a checkpoint under {tmp_path / 'lightning_logs'}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("checkpoint")
def test_refuses_in_a_line(refused: Refused, kept: Path, server: DemoServer) -> None:
    for args, message in [
        (("--port=65536",), "port is 65536; it must be at most 65535. See mnist-amp demo --help."),
        (("--port=http",), "port can't be http; it takes int. See mnist-amp demo --help."),
        (
            (f"--port={server.port}",),
            f"port {server.port} is in use already. Name another with --port; 0 is any that is free.",
        ),
        (
            ("--ckpt_path=null",),
            "ckpt_path is null, but demo needs a checkpoint; leave it out for the newest run's best. "
            "See mnist-amp demo --help.",
        ),
        (("--trainer.devices=2",), "demo reads on one device; leave trainer.devices and trainer.num_nodes at 1."),
        (
            ("--model.hidden_dim=3",),
            f"model.hidden_dim is 3, but {kept} holds a network of hidden_dim 128. Leave model.hidden_dim out, or "
            "start without this checkpoint.",
        ),
    ]:
        assert refused("demo", f"--ckpt_path={kept}", *args) == f"mnist-amp: error: {message}\n"


@pytest.mark.usefixtures("checkpoint")
def test_stops_in_the_midst_of_a_request(tmp_path: Path, kept: Path) -> None:
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
        assert (
            json.loads(ask(port, "POST", ALL, SEVEN.tobytes(), **BINARY)[2])["image"]
            == image_files.mnist_form(SEVEN).flatten().tolist()
        )
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 78400\r\n\r\nhalf" % port)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            with socket.create_server(("127.0.0.1", port)):
                pass  # it is free at once
        assert process.communicate() == ("", "mnist-amp: stopped by SIGTERM; the page is served no more.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    answers = [demo.Reader(network(), torch.device(kind))(SEVEN.tobytes(), list(DTYPES)) for kind in ("cpu", "cuda")]
    for name, reading in answers[0]["readings"].items():
        found = answers[1]["readings"][name]
        assert found["guess"] == reading["guess"]
        assert found["probabilities"] == pytest.approx(reading["probabilities"], abs=0.01)
        assert 0 < found["seconds"] < 1
