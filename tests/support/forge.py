"""A server with the part of GitHub's REST API that sets statuses of commits."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self


class Forge:
    """Keeps what it is told, path and body. `flags` are those of `xds run`. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        told: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
                self.send_response(201)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        token = folder / "token"
        token.write_text("token")
        url = f"github:http://127.0.0.1:{self._server.server_address[1]}/repos/shop/gateway"
        self.flags = ("--commit-status", url, "--commit-status-token", str(token))

    def status(self, commit: str) -> dict[str, str]:
        """The status of a commit that was set last, an empty one if none was."""
        return next((body for path, body in reversed(self.told) if path.endswith(f"/{commit}")), {})

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
