"""The admin address: HTTP with JSON for operators and probes. It binds to loopback unless configured otherwise.

It runs in its own thread, so that it responds even if the control plane is busy.
"""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Page:
    """The response of one path."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Page:
        """Return a value as JSON."""
        return cls(status, json.dumps(value, indent=1).encode() + b"\n")


class TooLong(Exception):  # noqa: N818 - a state of a request
    """A body has more bytes than its action accepts."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A POST. Its body is not read before the action asks for it. Names of `headers` have any case."""

    headers: Message
    body: Readable
    length: int

    def text(self) -> str:
        """Return the body as text. Raises TooLong beyond `LONGEST` bytes."""
        return b"".join(self.chunks(LONGEST)).decode("utf-8", "replace")

    def chunks(self, longest: int) -> Iterator[bytes]:
        """Yield the body in parts. Raises TooLong at once beyond `longest` bytes, and OSError if the client stops."""
        if self.length > longest:
            raise TooLong(f"the body must have at most {longest} bytes")
        rest = self.length
        while rest:
            part = self.body.read(min(rest, LONGEST))
            if not part:
                raise ConnectionError("the body is cut off")
            rest -= len(part)
            yield part


Pages = Mapping[str, Callable[[], Page]]
Actions = Mapping[str, Callable[[Incoming], Page]]
"""What a POST does, by path."""
NONE: Actions = MappingProxyType({})
LONGEST = 1 << 16
"""The maximum number of bytes of a body that is read as a whole."""


_DIGITS = 16
"""A number of bytes has fewer digits."""
UNIX = "unix:"


class _Local(ThreadingHTTPServer):
    """The same server on a Unix socket. Only users who may open its folder can reach it."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        path = Path(str(self.server_address))
        if path.is_socket():
            path.unlink()  # left by a process that was killed
        socketserver.TCPServer.server_bind(self)


class _Six(ThreadingHTTPServer):
    """The same server on an IPv6 address."""

    address_family = socket.AF_INET6


class Admin:
    """Serves `pages` and `actions` by path. Raises OSError if the address is in use.

    A host of ``unix:/PATH`` is a Unix socket, which has no port.
    """

    def __init__(self, host: str, port: int, pages: Pages, actions: Actions = NONE) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                _answer(self, _page(self, pages))

            def do_POST(self) -> None:
                _answer(self, _done(self, actions))

            def log_message(self, *_: object) -> None:
                """Log nothing, because probes are frequent."""

        if host.startswith(UNIX):
            self._server: ThreadingHTTPServer = _Local(host.removeprefix(UNIX), Handler)  # type: ignore[arg-type] # typeshed knows ports only
        else:
            self._server = (_Six if ":" in host else ThreadingHTTPServer)((host, port), Handler)
        self._host = host
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        """The address with the bound port: ``http://HOST:PORT`` or ``unix:/PATH``."""
        if self._host.startswith(UNIX):
            return self._host
        host = f"[{self._host}]" if ":" in self._host else self._host or "0.0.0.0"
        return f"http://{host}:{self._server.server_port}"

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()


def ask(
    address: tuple[str, int], method: str, path: str, body: str | None = None, *, timeout: float = 35.0
) -> Page:
    """Send a request to an admin address. Returns the response. Raises OSError, http.client.HTTPException."""
    host, port = address
    connection = (
        _LocalConnection(host.removeprefix(UNIX), timeout)
        if host.startswith(UNIX)
        else http.client.HTTPConnection(host or "localhost", port, timeout=timeout)
    )
    try:
        connection.request(method, path, body.encode() if body is not None else None)
        answer = connection.getresponse()
        return Page(answer.status, answer.read(), answer.headers.get("content-type", ""))
    finally:
        connection.close()


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _page(request: BaseHTTPRequestHandler, pages: Pages) -> Page:
    page = pages.get(urlsplit(request.path).path)
    return _reached(page) if page else Page.of({"pages": sorted(pages)}, 404)


def _done(request: BaseHTTPRequestHandler, actions: Actions) -> Page:
    action = actions.get(urlsplit(request.path).path)
    if action is None:
        return Page.of({"actions": sorted(actions)}, 404)
    if request.headers.get("origin") is not None:
        return Page.of({"error": "requests of browser pages are rejected"}, 403)
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < _DIGITS):
        return Page.of({"error": "the header Content-Length must be a number of bytes"}, 400)
    incoming = Incoming(request.headers, request.rfile, int(length))
    try:
        return _reached(lambda: action(incoming))
    except TooLong as error:
        return Page.of({"error": str(error)}, 413)


def _reached(page: Callable[[], Page]) -> Page:
    """Return a page, or 503 if it needs a server that cannot be reached."""
    try:
        return page()
    except OSError as error:
        return Page.of({"error": str(error) or type(error).__name__}, 503)


def _answer(request: BaseHTTPRequestHandler, found: Page) -> None:
    request.send_response(found.status)
    request.send_header("content-type", found.content_type)
    request.send_header("content-length", str(len(found.body)))
    request.end_headers()
    request.wfile.write(found.body)
