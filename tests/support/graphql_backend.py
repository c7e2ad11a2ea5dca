"""A REST service with the data of tests/support/graphql_shop.py, and with answers that a test scripts."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler

from tests.support.graphql_shop import Services
from tests.support.scripted_backend import ScriptedBackend, Seen
from xds_server.composer.calls import Call


class ShopBackend(ScriptedBackend):
    """Answers scripted paths as the script says, and others from the data."""

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.partition("?")[0] in self.answers:
            super()._respond(handler)
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
