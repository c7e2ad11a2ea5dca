"""Echo backends: each answers with its name and what it was asked, as JSON."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.ports import free_port


class Backend:
    """An HTTP/1.1 server on 127.0.0.1 that echoes requests. Use as a context manager.

    `seen` holds what came in. `status`, `headers`, `body` and `delay` (seconds) shape the next answers;
    the request header ``x-echo-status`` sets the status of one.
    """

    def __init__(self, name: str = "backend", port: int | None = None) -> None:
        self.name = name
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.seen: list[dict[str, Any]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.release: threading.Event | None = None
        self._server: ThreadingHTTPServer | None = None
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:  # noqa: C901 - the count is of the small methods of the class inside
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                body = self._read_body()
                pairs = [[name.lower(), value] for name, value in self.headers.items()]
                request = {
                    "backend": backend.name,
                    "method": self.command,
                    "path": self.path,
                    "headers": dict(pairs),
                    "header_list": pairs,
                    "body": body.decode("utf-8", "replace"),
                }
                backend.seen.append(request)
                if backend.release is not None:
                    backend.release.wait(30)
                status = int(self.headers.get("x-echo-status", backend.status))
                content = backend.body if backend.body is not None else json.dumps(request).encode()
                self.send_response(status)
                for name, value in backend.headers.items():
                    self.send_header(name, value)
                if not any(name.lower() == "content-type" for name in backend.headers):
                    self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _read_body(self) -> bytes:
                if self.headers.get("transfer-encoding", "").lower() == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("content-length", 0)))

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._answer
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                backend._connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, *_: object) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End as a process does: the port and every open connection are gone."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()
