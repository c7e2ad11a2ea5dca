"""A REST service with the data of tests/support/graphql_shop.py, and with answers that a test scripts."""

from __future__ import annotations

import asyncio
import queue
import threading
from http.server import BaseHTTPRequestHandler

from tests.support.graphql_shop import Services
from tests.support.scripted_backend import ScriptedBackend, Seen
from xds_server.composer.calls import Call


class ShopBackend(ScriptedBackend):
    """Answers scripted paths as the script says, and others from the data.

    ``/placed`` is a stream of what is put into `events`, until None. `left` is set when its client leaves.
    """

    def __init__(self, port: int | None = None) -> None:
        super().__init__(port)
        self.events: queue.Queue[bytes | None] = queue.Queue()
        self.left = threading.Event()

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.partition("?")[0] in self.answers:
            super()._respond(handler)
            return
        if handler.path.startswith("/placed"):
            self._stream(handler)
            return
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.seen.append(Seen(handler.command, handler.path, headers, body))
        call = Call(upstream="", method=handler.command, path=handler.path, headers=headers, body=body)
        found = asyncio.run(Services().call(call))
        handler.send_response(found.status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(found.body)))
        handler.end_headers()
        handler.wfile.write(found.body)

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        handler.connection.settimeout(0.02)
        while True:
            try:
                event = self.events.get(timeout=0.05)
            except queue.Empty:
                try:
                    if not handler.connection.recv(1):
                        self.left.set()
                        return
                except TimeoutError:
                    continue
                except OSError:
                    self.left.set()
                    return
                continue
            data = b"" if event is None else b"data: " + event + b"\n\n"
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            if event is None:
                handler.connection.settimeout(None)
                return
