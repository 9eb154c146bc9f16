"""The demo's HTTP server: a page, what it says of the model, and readings of drawings; it knows no torch.

It is Python's own `http.server` and one static page without a network resource. A library for such pages (Gradio,
Streamlit) would bring tens of MB of packages for one canvas, and pages that may fetch from elsewhere.

Only this machine reaches it, and of the pages in this machine's browsers only its own: another's requests bear that
one's Origin, or, where its name was made to point here, that name as their Host.
"""

import base64
import contextlib
import errno
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_WR, socket
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mnist_amp.errors import RequestError, warn

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).with_name("demo.html")
SIDE = 280  # pixels of a drawing
SIZE = SIDE * SIDE  # bytes of it: how much ink is where, row by row, so that there is nothing to decode
PATHS = {"/": "GET", "/about": "GET", "/read": "POST"}
MOST_CONNECTIONS = 32  # at a time; a browser has 6

Answer = Callable[[bytes, list[str]], dict[str, Any]]


class Refusal(Exception):  # noqa: N818  (it is an answer)
    """A request is answered with this status and message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class DemoServer(ThreadingHTTPServer):
    """Serves the page at 127.0.0.1.

    Args:
        port: 0 for any that is free.
        about: what the page says of the model.
        precisions: those that a drawing can be read in.
        answer: reads a drawing, `SIZE` bytes, in the precisions named; called for one drawing at a time. What it
            returns is sent as JSON.

    Raises:
        RequestError: the port can't be had.
    """

    daemon_threads = True
    # some versions of Python set it, and then two servers can have the same port, each for some of the requests
    allow_reuse_port = False

    def __init__(self, port: int, about: dict[str, Any], precisions: list[str], answer: Answer) -> None:
        self.about, self.precisions, self.answer = about, precisions, answer
        self.page = PAGE.read_bytes()
        self.policy = policy(self.page.decode())
        self.turn = threading.Lock()  # whose drawing is read; so that times are not those of several at once
        self.room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            why = "is in use already" if error.errno == errno.EADDRINUSE else f"can't be had: {error.strerror}"
            raise RequestError(f"port {port} {why}. Name another with --port; 0 is any that is free.") from None
        names = [f"{name}:{self.port}" for name in (ADDRESS, "localhost")]
        self.hosts = names if self.port != 80 else [*names, ADDRESS, "localhost"]

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks up a name for the address, which can take long offline

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.close_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, but not upon what its client still sends, or it could not read why it is refused."""
        with contextlib.suppress(OSError):
            request.shutdown(SHUT_WR)
            request.settimeout(0.5)
            for _ in range(64):
                if not request.recv(65536):
                    break
        self.close_request(request)

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Say nothing: the client has gone, or was told."""

    def stop(self) -> None:
        """Free the port, and let no drawing be read any more; one that is being read is still answered."""
        self.shutdown()
        self.server_close()
        self.turn.acquire(timeout=5)


class Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = "mnist-amp", ""
    protocol_version = "HTTP/1.1"  # a connection for many requests
    default_request_version = "HTTP/1.1"  # to be answered in, where a request can't be read
    timeout = 10  # seconds without a byte
    disable_nagle_algorithm, wbufsize = True, -1  # an answer leaves at once, and in one piece

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._read)

    def handle_expect_100(self) -> bool:
        goes_on = super().handle_expect_100()
        self.wfile.flush()  # the client waits for it
        return goes_on

    def _guarded(self, answer: Callable[[str], None]) -> None:
        try:
            answer(self._path())
        except Refusal as refusal:
            self.send_error(refusal.status, str(refusal))
        except OSError:  # the client has gone, or is too slow
            self.close_connection = True
        except Exception as error:
            warn(f"a request failed: {type(error).__name__}: {error}")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed; see where mnist-amp demo runs")

    def _path(self) -> str:
        """Return the path that is asked for, if this page or none asks for it."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, f"this is http://{self.server.hosts[0]}/, and answers to no other name")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise Refusal(HTTPStatus.FORBIDDEN, "another page asks; only this one's own may")
        path = urlsplit(self.path).path
        if path not in PATHS:
            raise Refusal(HTTPStatus.NOT_FOUND, f"there are {', '.join(PATHS)} and nothing else")
        if self.command != PATHS[path]:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {PATHS[path]}")
        return path

    def _get(self, path: str) -> None:
        if path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        else:
            self._send_json(HTTPStatus.OK, self.server.about)

    def _read(self, path: str) -> None:
        precisions = self._precisions()
        drawing = self._body()
        with self.server.turn:
            self._send_json(HTTPStatus.OK, self.server.answer(drawing, precisions))
            self.wfile.flush()

    def _precisions(self) -> list[str]:
        try:
            asked = parse_qs(urlsplit(self.path).query, max_num_fields=10).get("precision", [])
        except ValueError:
            asked = [""]
        if not set(asked) <= set(self.server.precisions):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"precision is one or several of {', '.join(self.server.precisions)}")
        return [name for name in self.server.precisions if name in asked]

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None or "Transfer-Encoding" in self.headers:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the request must say its length")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        if int(length) > SIZE:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a drawing has {SIZE} bytes")
        body = self.rfile.read(int(length))
        if len(body) != SIZE or self.headers.get("Content-Type") != "application/octet-stream":
            raise Refusal(HTTPStatus.BAD_REQUEST, f"a drawing is {SIZE} bytes of application/octet-stream")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error, http.server's own as well, and end the connection: a body may be left unread."""
        self.close_connection = True
        self._send_json(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (
            headers.items() if not self.close_connection else [*headers.items(), ("Connection", "close")]
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""


def policy(page: str) -> str:
    """Return the Content-Security-Policy under which the page's own script and style run, and nothing else does."""

    def hashed(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
