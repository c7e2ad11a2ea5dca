"""The three services of the example: users at port 9001, orders at 9002, recommendations at 9003."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER: dict[str, Any] = {"id": 7, "name": "Ada", "email": "ada@example.com", "address": {"city": "London"}}
ORDERS: dict[str, Any] = {
    "items": [{"id": 1, "title": "A lamp", "price": 19.90}, {"id": 2, "title": "A chair", "price": 89.00}]
}
RECOMMENDATIONS: list[dict[str, Any]] = [{"id": 3, "title": "A table", "why": "goes with the chair"}]
ANSWERS = {9001: USER, 9002: ORDERS, 9003: RECOMMENDATIONS}


def service(port: int, answer: object) -> ThreadingHTTPServer:
    """Return an HTTP server that is bound and does not serve yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing, so that only the gateway logs."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    threads = [
        threading.Thread(target=service(port, answer).serve_forever) for port, answer in ANSWERS.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
