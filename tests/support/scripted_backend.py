"""Backends that answer each path as a test says: with JSON, late, cut off, or not at all."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.ports import free_port


@dataclass
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """What a path answers: `json` or the bytes of `body`, after `release` is set.

    With `cut_off` the connection ends in the middle of the body, and with `held` nothing comes there until the client leaves. `given_up` is set if the client leaves before the answer.
    """

    json: Any = None
    body: bytes | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    release: threading.Event | None = None
    cut_off: bool = False
    held: bool = False
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def content(self) -> bytes:
        return self.body if self.body is not None else json.dumps(self.json).encode()


class ScriptedBackend:
    """An HTTP/1.1 server on 127.0.0.1. `answers` has the scripts by path without query; others are 404. A context manager."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.answers: dict[str, Script] = {}
        self.seen: list[Seen] = []
        self._server: ThreadingHTTPServer | None = None

    def answer(self, path: str, json: Any = None, **more: Any) -> Script:
        """Answer a path from now on."""
        self.answers[path] = Script(json=json, **more)
        return self.answers[path]

    def paths(self) -> list[str]:
        """The paths of all requests, in their order."""
        return [one.path for one in self.seen]

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _handler(self._respond))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for script in self.answers.values():
            if script.release is not None:
                script.release.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.seen.append(Seen(handler.command, handler.path, headers, body))
        script = self.answers.get(handler.path.partition("?")[0], Script(json={}, status=404))
        if script.release is not None and not _released(handler, script.release):
            script.given_up.set()
            handler.close_connection = True
            return
        content = script.content
        handler.send_response(script.status)
        for name, value in {"content-type": "application/json", **script.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content) * (2 if script.cut_off or script.held else 1)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
        if script.held:
            handler.wfile.flush()
            _released(handler, threading.Event())
        if script.cut_off or script.held:
            handler.wfile.flush()
            handler.close_connection = True


def _released(handler: BaseHTTPRequestHandler, release: threading.Event) -> bool:
    """Wait until an answer may be sent. Returns False if the client leaves before that."""
    handler.connection.settimeout(0.02)
    try:
        while not release.is_set():
            with contextlib.suppress(TimeoutError):
                if not handler.connection.recv(1):
                    return False
    except OSError:
        return False
    finally:
        handler.connection.settimeout(None)
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


def _handler(respond: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return lambda: respond(self)
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
