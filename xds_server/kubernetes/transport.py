"""HTTP to an API server: credentials, TLS, timeouts, and every failure as one of our errors."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import jiter

from xds_server.kubernetes.api_errors import Unreachable, rejected, status_of
from xds_server.kubernetes.connection import Connection, Tls, TokenReader
from xds_server.kubernetes.resources import Object

CONNECT, REQUEST = 10.0, 60.0
"""Seconds in which the API server must accept a connection, and must have sent a whole response."""
JSON = "application/json"
_BUFFER = 2**20
_KEEPALIVE = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}
"""Finds a lost peer after 40 seconds of silence."""


class Transport:
    """Connections to one API server. Use as an asynchronous context manager. `limit` is the seconds of one request.

    Proxies are those of the kubeconfig; the environment's variables are not read.
    """

    def __init__(self, connection: Connection, *, limit: float = REQUEST) -> None:
        self.connection = connection
        self._limit = limit
        self._tls = Tls(connection)
        self._token = TokenReader(connection.token)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_BUFFER)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = JSON, **parameters: str
    ) -> Object:
        """Send a request and return the object of the response. Raises ApiError or InvalidKubeconfig."""
        times = aiohttp.ClientTimeout(total=self._limit, sock_connect=CONNECT)
        async with self._response(method, path, parameters, times, body, content_type) as response:
            found: Object = decoded(await response.read(), f"{method} {path}")
            return found

    async def lines(
        self, path: str, parameters: Mapping[str, str], silence: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a response as they come. Raises Unreachable after a silence of so many seconds."""
        times = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=silence)
        async with self._response("GET", path, parameters, times) as response:
            parts: list[bytes] = []
            async for chunk in response.content.iter_any():
                first, *rest = chunk.split(b"\n")
                parts.append(first)
                for part in rest:
                    if line := b"".join(parts):
                        yield line
                    parts = [part]
            # a last line without its end was cut off

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        times: aiohttp.ClientTimeout,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Yield a response without an error, and turn what goes wrong until its end into our errors."""
        assert self._session is not None, "enter the client first"
        token = self._token.current()
        try:
            async with self._session.request(
                method,
                self.connection.server + path,
                data=None if body is None else json.dumps(body),
                params=dict(sorted(parameters.items())),
                headers={
                    "Accept": JSON,
                    "Content-Type": content_type,
                    **({"Authorization": f"Bearer {token}"} if token else {}),
                },
                ssl=self._tls.context(),
                server_hostname=self.connection.server_name,
                proxy=self.connection.proxy,
                timeout=times,
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    content, after = await response.read(), response.headers.get("Retry-After")
                    raise rejected(status_of(response.status, content, after), f"{method} {path}")
                try:
                    yield response
                finally:
                    _abort(response)
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self.connection.server}: {method} {path}: {_reason(error)}") from None


def _abort(response: aiohttp.ClientResponse) -> None:
    """Drop the connection of a response that was not read to its end, without a farewell that nobody waits for."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def decoded(content: bytes, request: str) -> Any:
    """Return what JSON says. Raises Unreachable if it is not JSON."""
    try:
        return jiter.from_json(content)
    except ValueError:
        raise Unreachable(f"{request}: the response is not JSON") from None


def _reason(error: Exception) -> str:
    """Return why a connection failed. A timeout has no text of its own."""
    return "no response in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _socket(address: Any) -> socket.socket:
    """Return a socket that notices a peer which is no longer there."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
