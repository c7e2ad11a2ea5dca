"""The console's web server: uvicorn with a bound for connections, and an end of the pages that follow the rates."""

from __future__ import annotations

import asyncio
import socket

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from xds_server.console.live import Live


class WebServer(Server):
    """Ends the pages that follow the rates before it stops: they would never end by themselves."""

    def __init__(self, config: Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop after the responses have ended."""
        await self._live.end()
        await super().shutdown(sockets)


def bounded_connections(most: int) -> type[H11Protocol]:
    """Return the protocol of a connection that is closed if it sends nothing, or if `most` others are open."""

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
                return
            # uvicorn itself waits without end for the first request
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    return Connection
