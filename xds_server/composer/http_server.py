"""The HTTP/1.1 server of the composer. Envoy is its only client, and sends one request at a time over a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import cast

import httptools

from xds_server.composer.messages import Request, Response
from xds_server.processes.listening_ports import UNIX
from xds_server.unary_server.accepting import Accepting, Shared

MOST_BODY = 16 << 20
"""Bytes of the body of a request; the gateway's own limits are usually smaller."""
Respond = Callable[[Request], Awaitable[Response]]
_REASONS = {one.value: one.phrase for one in HTTPStatus}


class HttpServer:
    """Serves requests. `busy` is the number of those in progress; `refuse` makes the response to a body that is too large."""

    def __init__(self, respond: Respond, refuse: Callable[[Request], Response]) -> None:
        self.respond, self.refuse = respond, refuse
        self.busy = 0
        self.draining = False
        self._connections: set[_Connection] = set()
        self._fewer = asyncio.Event()
        self._accepting: list[Accepting] = []
        self._servers: list[asyncio.Server] = []

    async def start(self, address: str, shared: Sequence[Shared] = ()) -> None:
        """Listen on ``HOST:PORT`` or ``unix:/PATH``, or at sockets that are already bound to it. Raises OSError."""
        loop = asyncio.get_running_loop()
        if shared:
            self._accepting = [Accepting(one, self._connection) for one in shared]
        elif address.startswith(UNIX):
            path = address.removeprefix(UNIX).removeprefix("//")
            self._servers.append(await loop.create_unix_server(self._connection, path))
        else:
            host, _, port = address.rpartition(":")
            server = await loop.create_server(self._connection, host.strip("[]") or None, int(port))
            self._servers.append(server)

    async def stop(self, grace: float) -> None:
        """Accept no more, and give requests in progress `grace` seconds."""
        self.draining = True
        for accepting in self._accepting:
            accepting.close()
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until_empty()
        for connection in tuple(self._connections):
            connection.abort()

    async def _until_empty(self) -> None:
        while self._connections:
            self._fewer.clear()
            await self._fewer.wait()

    def _connection(self) -> _Connection:
        return _Connection(self)

    def opened(self, connection: _Connection) -> None:
        """Count a connection."""
        self._connections.add(connection)
        self._count()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._fewer.set()
        self._count()

    def _count(self) -> None:
        for one in self._accepting:
            if not self.draining:
                one.count(len(self._connections))


class _Connection(asyncio.Protocol):
    """A connection of Envoy. When it ends, so does its request."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of another class
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Make no more parts of a body until Envoy has taken some: its client is slow."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable.set()

    def drain(self) -> None:
        """Close it if it has no request."""
        if self._task is None:
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Keep a part of the path."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Several of one name are one list (RFC 9110 section 5.2), cookies too (RFC 9113 section 8.2.3)."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            text = f"{self._headers[key]}{'; ' if key == 'cookie' else ', '}{text}"
        self._headers[key] = text

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._size += len(body)
        if self._size <= MOST_BODY:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request."""
        if self._task is not None:
            self.abort()  # a second request before the first response
            return
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=self._url.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
        )
        if self._size > MOST_BODY:
            self._write(request, self._server.refuse(request))
            return
        self._task = self._loop.create_task(self._respond(request))

    async def _respond(self, request: Request) -> None:
        self._server.busy += 1
        try:
            response = await self._server.respond(request)
            if not isinstance(response.body, bytes):
                await self._write_parts(response, response.body)
        finally:
            self._server.busy -= 1
            self._task = None
        if isinstance(response.body, bytes):
            self._write(request, response)
        else:
            self._end(close=self._must_close)

    @property
    def _must_close(self) -> bool:
        return self._server.draining or not self._parser.should_keep_alive()

    def _end(self, *, close: bool) -> None:
        if close and self._transport is not None:
            self._transport.close()

    async def _write_parts(self, response: Response, body: AsyncGenerator[bytes]) -> None:
        """Write a body as it is made, in chunks (RFC 9112 section 7.1), no faster than it is read. One that fails is cut off."""
        try:
            async with contextlib.aclosing(body) as parts:
                self._send(_head(response, "transfer-encoding: chunked", close=self._must_close))
                async for part in parts:
                    self._send(b"%x\r\n%b\r\n" % (len(part), part))
                    await self._writable.wait()
        except Exception:
            self.abort()
            raise
        self._send(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _write(self, request: Request, response: Response) -> None:
        assert isinstance(response.body, bytes), "others are written in parts"
        close = self._must_close
        head = _head(response, f"content-length: {len(response.body)}", close=close)
        self._send(head if request.method == "HEAD" else head + response.body)
        self._end(close=close)


def _head(response: Response, length: str, *, close: bool) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    lines.append(length)
    if close:
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
