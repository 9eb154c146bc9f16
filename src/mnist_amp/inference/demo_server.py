"""The demo's HTTP server, on Starlette and uvicorn. It does not use torch.

Only this machine can reach it, because it listens on 127.0.0.1. In this machine's browsers, only its own page can use
it: a request from another page has that page's address as its Origin, and if another page's name was made to point to
127.0.0.1, the request has that name as its Host.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mnist_amp.errors import RequestError, warn
from mnist_amp.inference.demo_page import PAGE, security_headers

ADDRESS = "127.0.0.1"
MAX_CONNECTIONS = 32  # a browser opens 6
SILENCE = 10  # seconds without a byte after which a connection is closed
GRACE = 2  # seconds that requests have to end when the server stops
FAILED = "The request failed. The reason is printed where mnist-amp demo runs."

Read = Callable[[bytes, list[str]], dict[str, Any]]


def make_app(about: dict[str, Any], precisions: list[str], size: int, read: Read) -> Starlette:
    """Return the application: `GET /` (the page), `GET /about` and `POST /read?precision=...` (both answer with JSON).

    Args:
        about: what the page shows about the model; plain values.
        precisions: names of the precisions that a drawing can be read in.
        size: bytes of a drawing.
        read: takes a drawing and the requested precisions, and returns plain values. It blocks the only thread, so it
            reads one drawing at a time, and does not measure the time of several at once.
    """

    async def read_drawing(request: Request) -> Response:
        requested = request.query_params.getlist("precision")
        if not set(requested) <= set(precisions):
            raise HTTPException(400, f"The precisions are {', '.join(precisions)}.")
        drawing = await _drawing(request, size)
        return JSONResponse(read(drawing, [name for name in precisions if name in requested]))

    return Starlette(
        routes=[
            Route("/", HTMLResponse(PAGE), methods=["GET"]),
            Route("/about", JSONResponse(about), methods=["GET"]),
            Route("/read", read_drawing, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, [ADDRESS, "localhost"]), Middleware(SameOriginMiddleware)],
        exception_handlers={Exception: _failed},
    )


async def _drawing(request: Request, size: int) -> bytes:
    """Return the body; a body of another size is refused before it is read."""
    length = request.headers.get("Content-Length")
    if length is None or "Transfer-Encoding" in request.headers:
        raise HTTPException(411)
    if int(length) != size or request.headers.get("Content-Type") != "application/octet-stream":
        status = 413 if int(length) > size else 400
        raise HTTPException(status, f"A drawing is {size} bytes of application/octet-stream.")
    return await request.body()


async def _failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        warn(f"a request failed: {type(error).__name__}: {error}")
    return PlainTextResponse(FAILED, 500)


class SameOriginMiddleware:
    """Refuses the requests of another page. Their Origin differs from the Host that they are sent to."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        is_own = headers.get("Origin") in (None, f"http://{headers['Host']}")
        answer = self.app if is_own else PlainTextResponse("Only the demo's own page can use it.", 403)
        await answer(scope, receive, send)


class ImpatientProtocol(H11Protocol):
    """Closes a connection at once if there are too many, and a connection that is silent for too long.

    uvicorn would keep silent connections, and wait for the rest of a request.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        self.silence = self.loop.call_later(SILENCE, transport.close)

    def data_received(self, data: bytes) -> None:
        self.silence.cancel()
        self.silence = self.loop.call_later(SILENCE, self.transport.close)
        super().data_received(data)


class DemoServer(uvicorn.Server):
    """Serves an application on a socket of `listen`, by `run([socket])`, until its `should_exit` is set."""

    def __init__(self, app: ASGIApp) -> None:
        quiet: dict[str, Any] = {"log_config": None, "log_level": "critical", "server_header": False}
        less: dict[str, Any] = {"loop": "asyncio", "ws": "none", "lifespan": "off", "proxy_headers": False}
        headers = [*security_headers(PAGE).items()]
        super().__init__(
            uvicorn.Config(
                app, http=ImpatientProtocol, headers=headers, timeout_graceful_shutdown=GRACE, **quiet, **less
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers as they are. uvicorn's would also replace ignored signals, and raise them again."""
        yield


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1, on a free port if `port` is 0.

    Raises:
        RequestError: the port is in use, or not allowed.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        why = "is already in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        raise RequestError(f"port {port} {why}. Choose another with --port; 0 takes a free port.") from None
