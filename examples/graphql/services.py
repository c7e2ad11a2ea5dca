"""Two REST services: users, and their orders. ``python services.py users 9001`` runs one of them."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USERS = {
    number: {"id": number, "full_name": name, "email": f"{name.lower()}@example.com"}
    for number, name in enumerate(("Ada", "Bob", "Cleo"), 1)
}
ORDERS = [
    {"id": 10 * user + number, "user_id": user, "total": 5 * number} for user in USERS for number in (1, 2)
]


def answer(service: str, path: str) -> Any:
    """Return what a service answers to a GET, None for 404."""
    where = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(where.query).items()}
    if service == "orders":
        users = query.get("users", query.get("user", "")).split(",")
        return [one for one in ORDERS if str(one["user_id"]) in users]
    name = where.path.removeprefix("/users").strip("/")
    if not name:
        return {"items": list(USERS.values())[: int(query.get("limit", 10))]}
    return USERS.get(int(name)) if name.isdecimal() else None


def service(name: str, port: int) -> ThreadingHTTPServer:
    """Return an HTTP server that is bound and does not serve yet. `seen` has the paths of its requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answer(name, self.path)
            body = json.dumps(found).encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            print(f"{name}: GET {self.path}", flush=True)

        def log_message(self, *_: object) -> None:
            """Print the requests in a form of our own."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    with service(sys.argv[1], int(sys.argv[2])) as running:
        running.serve_forever()
