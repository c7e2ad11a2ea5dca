"""The two services of the quick start. Each responds with its name, and the method and path of the request.

``python services.py users 9001`` runs one of them.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def service(name: str, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Return an HTTP server that is bound and does not serve yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = name

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps({"service": name, "method": self.command, "path": self.path}).encode() + b"\n"
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that the standard library calls

        def log_message(self, *_: object) -> None:
            """Log nothing, so that only the gateway logs."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    with service(sys.argv[1], int(sys.argv[2]), "0.0.0.0") as running:
        running.serve_forever()
