"""The console's port: open from the start, while the web server behind it starts with the first connection.

So the console costs the control plane nothing while nobody looks. The web server has a thread and an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING

from xds_server.processes.addresses import is_loopback

if TYPE_CHECKING:
    from xds_server.console.source import Source
    from xds_server.console.web_server import WebServer

log = logging.getLogger(__name__)

BACKLOG = 128
MOST = 256
"""Open connections. Further ones are closed at once, so that strangers cannot use up the files of the control plane."""
IDLE = 5
"""Seconds for which a connection may be open without a request."""


class Console:
    """Listens at `host` and `port`. Raises OSError if the address is in use.

    A host that is not loopback needs a token: `token`, or one that it makes.
    """

    def __init__(self, host: str, port: int, source: Source, token: str | None = None) -> None:
        self._source, self._host = source, host
        self._token = token or (None if is_loopback(host) else secrets.token_urlsafe(24))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._server: WebServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address for a browser, with the token if one is needed."""
        host = "localhost" if self._host in ("", "0.0.0.0", "::") else self._host
        text = f"[{host}]" if ":" in host else host
        return f"http://{text}:{self._socket.getsockname()[1]}/" + (
            f"?token={self._token}" if self._token else ""
        )

    def start(self) -> None:
        """Wait for the first connection. Call it in the event loop of the control plane."""
        asyncio.get_running_loop().add_reader(self._socket, self._serve)

    def _serve(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from uvicorn import Config

        from xds_server.console.live import Live
        from xds_server.console.web import application
        from xds_server.console.web_server import WebServer, bounded_connections

        hosts = (
            frozenset(("localhost", "127.0.0.1", "::1", self._host))
            if is_loopback(self._host)
            else frozenset()
        )
        live = Live(self._source.envoy)
        app = application(self._source, live, hosts, self._token)
        config = Config(
            app,
            http=bounded_connections(MOST),
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=1,
            proxy_headers=False,
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
        )
        self._server = WebServer(config, live)
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception:
            log.exception("the console has stopped: this is a fault of xds, please report it")

    def stop(self) -> None:
        """Close the port. Pages that follow the rates end."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._socket)
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(2)
        self._socket.close()
