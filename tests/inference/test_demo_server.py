"""The demo's HTTP server: its answers, its refusals, and its limits."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from mnist_amp.inference import demo_server
from mnist_amp.inference.demo_page import PAGE, security_headers
from mnist_amp.inference.demo_server import DemoServer, listen, make_app

BINARY = {"Content-Type": "application/octet-stream"}
SIZE = 78400
ABOUT = {"checkpoint": "best.ckpt"}
PRECISIONS = ["float32", "float16", "bfloat16"]


@dataclass
class Served:
    """A server that runs, and the function that it reads drawings with."""

    port: int
    read: demo_server.Read


def read(drawing: bytes, precisions: list[str]) -> dict[str, Any]:
    return {"image": list(drawing[:3]), "readings": precisions}


@contextmanager
def serving() -> Iterator[Served]:
    with listen(0) as listener:
        served = Served(listener.getsockname()[1], read)
        app = make_app(ABOUT, PRECISIONS, SIZE, lambda drawing, precisions: served.read(drawing, precisions))
        server = DemoServer(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield served
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def server(shared: Served) -> Served:
    shared.read = read
    return shared


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request; returns status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def exchange(server: Served, request: bytes) -> tuple[int, str]:
    """Send bytes that no client would; returns status and body of the answer, after which the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request)
        head, _, content = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), content.decode()


def test_serves_the_page(server: Served) -> None:
    status, headers, content = ask(server.port, "GET", "/")
    assert (status, content.decode()) == (200, PAGE)
    del headers["Date"]
    assert dict(headers) == {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(PAGE.encode())),
        **{name.lower(): value for name, value in security_headers(PAGE).items()},
    }


def test_head_has_no_body(server: Served) -> None:
    status, headers, content = ask(server.port, "HEAD", "/")
    assert (status, headers["Content-Length"], content) == (200, str(len(PAGE.encode())), b"")


def test_about(server: Served) -> None:
    status, headers, content = ask(server.port, "GET", "/about")
    assert (status, headers["Content-Type"], json.loads(content)) == (200, "application/json", ABOUT)


@pytest.mark.parametrize(
    ("path", "precisions"),
    [
        ("/read", []),
        ("/read?precision=float16", ["float16"]),
        ("/read?precision=bfloat16&precision=float32&x=1", ["float32", "bfloat16"]),
    ],
)
def test_reads_a_drawing_in_the_requested_precisions(server: Served, path: str, precisions: list[str]) -> None:
    status, _, content = ask(server.port, "POST", path, b"\x00\x01\x02" + bytes(SIZE - 3), **BINARY)
    assert (status, json.loads(content)) == (200, {"image": [0, 1, 2], "readings": precisions})


OTHER_PAGE = "Only the demo's own page can use it."
NO_DRAWING = f"A drawing is {SIZE} bytes of application/octet-stream."
NO_PRECISION = "The precisions are float32, float16, bfloat16."


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("GET", "/", {"Host": "evil.example"}, 400, "Invalid host header"),
        ("GET", "/", {"Host": "evil.example:{port}"}, 400, "Invalid host header"),
        ("GET", "/about", {"Host": "127.0.0.1.evil.example"}, 400, "Invalid host header"),
        ("POST", "/read", {"Host": "evil.example", "Origin": "http://evil.example"}, 400, "Invalid host header"),
        ("POST", "/read", {"Origin": "http://evil.example"}, 403, OTHER_PAGE),
        ("POST", "/read", {"Origin": "https://127.0.0.1:{port}"}, 403, OTHER_PAGE),
        ("POST", "/read", {"Origin": "http://127.0.0.1:1"}, 403, OTHER_PAGE),
        ("POST", "/read", {"Origin": "http://127.0.0.1"}, 403, OTHER_PAGE),
        ("POST", "/read", {"Origin": "null"}, 403, OTHER_PAGE),
        ("GET", "/about", {"Origin": "http://evil.example"}, 403, OTHER_PAGE),
        ("GET", "/demo.html", {}, 404, "Not Found"),
        ("GET", "/../demo.py", {}, 404, "Not Found"),
        ("GET", "/read", {}, 405, "Method Not Allowed"),
        ("POST", "/", {}, 405, "Method Not Allowed"),
        ("PUT", "/read", {}, 405, "Method Not Allowed"),
        ("OPTIONS", "/read", {}, 405, "Method Not Allowed"),
        ("POST", "/read?precision=int8", BINARY, 400, NO_PRECISION),
        ("POST", "/read", {"Content-Length": "-1"}, 400, "Invalid HTTP request received."),
        ("POST", "/read", {"Content-Length": "7e4"}, 400, "Invalid HTTP request received."),
        ("POST", "/read", {"Content-Length": "9" * 5000}, 400, "Invalid HTTP request received."),
        ("POST", "/read", {"Content-Length": "78401"}, 413, NO_DRAWING),
        ("POST", "/read", {"Content-Length": "9" * 18}, 413, NO_DRAWING),  # before any of it was sent
        ("POST", "/read", {"Content-Length": "0"}, 400, NO_DRAWING),
        ("POST", "/read", {"Transfer-Encoding": "chunked"}, 411, "Length Required"),
    ],
)
def test_refuses(server: Served, method: str, path: str, headers: dict[str, str], status: int, message: str) -> None:
    given = {name.replace("-", "_"): value.format(port=server.port) for name, value in headers.items()}
    found, answered, content = ask(server.port, method, path, None, **given)
    assert (found, content.decode()) == (status, message)
    assert answered["Content-Type"] == "text/plain; charset=utf-8"


def test_refuses_bodies(server: Served) -> None:
    for body, headers, status in [
        (bytes(SIZE - 1), BINARY, 400),
        (bytes(SIZE), {"Content-Type": "image/png"}, 400),
        (bytes(3_000_000), BINARY, 413),  # the client can read the reason, although it is still sending
    ]:
        assert ask(server.port, "POST", "/read", body, **headers)[0] == status


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{port}", "http://localhost:{port}"])
def test_answers_its_own_page(server: Served, origin: str) -> None:
    own = origin.format(port=server.port)
    assert ask(server.port, "POST", "/read", bytes(SIZE), Origin=own, Host=own[7:], **BINARY)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without a Host
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    ],
)
def test_refuses_requests_that_no_browser_sends(server: Served, sent: bytes) -> None:
    assert exchange(server, sent)[0] == 400  # the text is the library's
    assert ask(server.port, "GET", "/about")[0] == 200


def test_a_client_that_leaves_within_a_request_does_no_harm(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    head = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 78400\r\n%s\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head % (server.port, b"Content-Type: application/octet-stream\r\n") + b"half")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert ask(server.port, "GET", "/about")[0] == 200
    assert capsys.readouterr().err == ""


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_server, "SILENCE", 0.1)
    with serving() as server:
        head = b"Host: 127.0.0.1:%d\r\nContent-Length: 78400\r\n" % server.port
        for request in (
            b"",
            b"GET / HT",
            b"POST /read HTTP/1.1\r\n" + head + b"Content-Type: application/octet-stream\r\n\r\nhalf",
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(request)
                assert client.recv(1) == b""


def test_the_number_of_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_server, "MAX_CONNECTIONS", 1)
    with serving() as server, socket.create_connection(("127.0.0.1", server.port)) as first:
        request = b"GET /about HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port
        first.sendall(request)
        assert first.recv(12) == b"HTTP/1.1 200"
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as second:
            assert second.recv(1) == b""
        deadline = time.monotonic() + 20
        first.close()
        while not answers(server.port):
            assert time.monotonic() < deadline


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/about")[0] == 200
    except (http.client.HTTPException, ConnectionError):
        return False


def test_a_failed_request_is_logged_and_the_server_goes_on_serving(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(drawing: bytes, precisions: list[str]) -> dict[str, Any]:
        raise KeyError("a secret")

    server.read = fail
    status, headers, content = ask(server.port, "POST", "/read", bytes(SIZE), **BINARY)
    assert (status, content.decode()) == (500, "The request failed. The reason is printed where mnist-amp demo runs.")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert capsys.readouterr().err == "mnist-amp: warning: a request failed: KeyError: 'a secret'\n"
    server.read = read
    assert ask(server.port, "POST", "/read", bytes(SIZE), **BINARY)[0] == 200


def test_reads_one_drawing_at_a_time(server: Served) -> None:
    both, alone = threading.Barrier(2), threading.Event()

    def wait(drawing: bytes, precisions: list[str]) -> dict[str, Any]:
        try:
            both.wait(timeout=0.2)
        except threading.BrokenBarrierError:
            alone.set()
        return {}

    server.read = wait
    asked = (server.port, "POST", "/read", bytes(SIZE))
    threads = [threading.Thread(target=ask, args=asked, kwargs=BINARY) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone.is_set()
