"""The asyncio edge: reads sockets, calls methods, and sends all responses of one read in one write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from filters.streaming import StreamMethod
from filters.unary import Later, RpcError, UnaryMethod, Undoable
from xds_server.unary_server import grpc
from xds_server.unary_server.accepting import Accepting, Shared
from xds_server.unary_server.connection import Connection
from xds_server.unary_server.events import Began, Cancelled, Ended, Message, Request, ServerLimits, Unread
from xds_server.unary_server.grpc import Status
from xds_server.unary_server.streams import Streams

log = logging.getLogger(__name__)

HANDSHAKE = 10.0
"""Seconds in which a peer must send its preface."""
KEEPALIVE = 30.0
"""Seconds of silence after which the peer gets a PING."""
MOST_UNDOABLE = 1024
"""Responses of a connection that can still be undone. A peer that cancels requests may have as many unread."""


class UnaryServer:
    """Serves gRPC methods on any number of addresses, in one event loop.

    A connection that is silent for more than `keepalive` seconds gets a PING. It is closed if it stays silent for as
    long again.
    """

    def __init__(
        self,
        methods: Iterable[UnaryMethod],
        streams: Iterable[StreamMethod] = (),
        *,
        limits: ServerLimits | None = None,
        keepalive: float = KEEPALIVE,
    ) -> None:
        self.keepalive = keepalive
        self._methods = {method.path.encode(): method for method in methods}
        self._streams = {method.path.encode(): method for method in streams}
        self._limits = limits or ServerLimits()
        self._servers: list[asyncio.Server | Accepting] = []
        self._accepting: list[Accepting] = []
        self._connections: set[_Protocol] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(
        self, address: str | Shared, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False
    ) -> int:
        """Listen on ``host:port``, ``unix:/path`` or a shared socket. Returns the port, or 0 if there is none.

        `tls` must offer ``h2`` by ALPN (see `server_context`). Raises OSError if the address is in use.
        """
        loop = asyncio.get_running_loop()
        make: Callable[[], asyncio.BaseProtocol] = self._protocol
        server: asyncio.Server | Accepting
        if isinstance(address, Shared):
            server = Accepting(address, make, tls)
            self._accepting.append(server)
        elif address.startswith("unix:"):
            path = address.removeprefix("unix:").removeprefix("//")
            _remove_stale(path)
            server = await loop.create_unix_server(make, path, ssl=tls)
        else:
            host, _, port = address.rpartition(":")
            server = await loop.create_server(
                make, host.strip("[]"), int(port), ssl=tls, reuse_port=reuse_port or None, backlog=1024
            )
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return int(bound[1]) if isinstance(bound, tuple) else 0

    @property
    def busy(self) -> int:
        """The number of requests in progress."""
        return sum(connection.active for connection in self._connections)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    async def drain(self, grace: float) -> None:
        """Accept no new connections and requests, and give requests in progress `grace` seconds."""
        self._accepting.clear()
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        for connection in tuple(self._connections):
            connection.abort()
        self._servers.clear()

    def _count(self) -> None:
        for accepting in self._accepting:
            accepting.count(self.connections)

    def _protocol(self) -> _Protocol:
        return _Protocol(self._methods, self._streams, self._limits, self)

    def opened(self, connection: _Protocol) -> None:
        """Add a new connection."""
        self._connections.add(connection)
        self._idle.clear()
        self._count()

    def ended(self, connection: _Protocol) -> None:
        """Remove a connection that has ended."""
        self._connections.discard(connection)
        self._count()
        if not self._connections:
            self._idle.set()


class _Protocol(asyncio.Protocol):
    def __init__(
        self,
        methods: dict[bytes, UnaryMethod],
        streams: dict[bytes, StreamMethod],
        limits: ServerLimits,
        server: UnaryServer,
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._server = server
        self._connection = Connection(limits, streams.keys())
        self._streams = Streams(self._connection, streams, self._flush_soon)
        self._transport: Any = None
        self._work: dict[int, asyncio.Future[Any]] = {}
        """The task or the future that each waiting request depends on, by stream."""
        self._expired: set[int] = set()
        """Streams whose deadline has passed, until the work on them has ended."""
        self._given_up: set[int] = set()
        """Streams whose client cancelled or disconnected, until the work on them has ended."""
        self._undoable: dict[int, Callable[[], None]] = {}
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        """The timer of the handshake first, then of the keepalive."""
        self._began = False
        self._silent = 0
        """Keepalive intervals without a byte from the peer."""

    @property
    def active(self) -> int:
        """The number of requests in progress."""
        return self._connection.active

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.opened(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE, transport.abort)
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._given_up.update(self._work)
        for work in self._work.values():
            _cancel_later(work)
        self._streams.lost()
        self._server.ended(self)

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read its responses."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        events = self._connection.receive(data)
        if not self._began and self._connection.began:
            self._begin()
        for event in events:
            if type(event) is Request:
                if self._connection.wanted(event.stream):
                    self._call(event)
            elif type(event) is Message or type(event) is Ended:
                self._streams.go_on(event)
            elif type(event) is Began:
                self._streams.began(event)
            elif type(event) is Cancelled:
                self._cancel(event.stream)
            elif type(event) is Unread:
                undo = self._undoable.pop(event.stream, None)
                if undo is not None:
                    undo()
        self._flush()

    def _begin(self) -> None:
        self._began = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._server.keepalive, self._keep_alive)

    def _keep_alive(self) -> None:
        self._silent += 1
        if self._silent > 2:
            self._transport.abort()
            return
        if self._silent == 2:
            self._connection.ping()
            self._flush()
        self._timer = asyncio.get_running_loop().call_later(self._server.keepalive, self._keep_alive)

    def drain(self) -> None:
        """Accept no new requests, and finish those in progress."""
        self._connection.drain()
        self._flush()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def _call(self, request: Request) -> None:
        fields, stream = request.fields, request.stream
        try:
            if not grpc.is_call(fields):
                self._connection.refuse(stream, 405 if fields.method != b"POST" else 415)
                return
            method = self._methods.get(fields.path)
            if method is None:
                raise RpcError(Status.UNIMPLEMENTED, "no such method")
            if fields.encoding not in (b"", b"identity"):
                raise RpcError(Status.UNIMPLEMENTED, "compressed messages are not supported")
            limit = grpc.timeout(fields)
            result = method.call(_parsed(method, grpc.message(request.body, self._limits.max_message)))
            if type(result) is bytes:
                self._connection.answer(stream, result)
            elif type(result) is Undoable or not hasattr(result, "__await__"):
                self._answer(stream, method, result)
            else:
                self._wait(stream, method, result, limit)
        except RpcError as error:
            self._connection.fail(stream, error.code, error.message)
        except Exception:
            log.exception(
                "method failed; the client gets UNKNOWN path=%s", fields.path.decode("ascii", "replace")
            )
            self._connection.fail(stream, Status.UNKNOWN, "the method failed")

    def _wait(self, stream: int, method: UnaryMethod, result: Any, limit: float | None) -> None:
        """Answer when a result is there. A task costs more than a callback, so only coroutines get one."""
        finish = None
        if type(result) is Later:
            result, finish = result.future, result.finish
        work = self._work[stream] = asyncio.ensure_future(result)
        timer = None
        if limit is not None:  # asyncio.timeout does the same and takes three times as long
            timer = asyncio.get_running_loop().call_later(limit, self._expire, stream)
        work.add_done_callback(partial(self._finish, stream, method, finish, timer))

    def _finish(
        self,
        stream: int,
        method: UnaryMethod,
        finish: Callable[[Any], Any] | None,
        timer: asyncio.TimerHandle | None,
        work: asyncio.Future[Any],
    ) -> None:
        """Answer a request whose work is done."""
        connection = self._connection
        try:
            result = work.result()
            self._answer(stream, method, result if finish is None else finish(result))
        except TimeoutError:
            connection.fail(stream, Status.DEADLINE_EXCEEDED, "the deadline passed")
        except RpcError as error:
            connection.fail(stream, error.code, error.message)
        except asyncio.CancelledError:
            if stream in self._expired:
                connection.fail(stream, Status.DEADLINE_EXCEEDED, "the deadline passed")
            else:
                connection.release(stream)
        except Exception:
            log.exception("method failed; the client gets UNKNOWN path=%s", method.path)
            connection.fail(stream, Status.UNKNOWN, "the method failed")
        if timer is not None:
            timer.cancel()
            self._expired.discard(stream)
        del self._work[stream]
        self._given_up.discard(stream)
        self._flush_soon()

    def _expire(self, stream: int) -> None:
        work = self._work.get(stream)
        if work is not None:
            self._expired.add(stream)
            work.cancel()

    def _answer(self, stream: int, method: UnaryMethod, result: Any) -> None:
        if stream in self._given_up:  # the work ended before the task was cancelled, and no client reads this
            if type(result) is Undoable:
                result.undo()
            self._connection.release(stream)
            return
        if type(result) is Undoable:
            self._undoable[stream] = result.undo
            if len(self._undoable) > MOST_UNDOABLE:
                del self._undoable[next(iter(self._undoable))]
            result = result.response
        self._connection.answer(stream, result if type(result) is bytes else method.serialize(result))

    def _cancel(self, stream: int) -> None:
        work = self._work.get(stream)
        if work is not None:
            self._expired.discard(stream)
            self._given_up.add(stream)
            _cancel_later(work)
        else:
            self._streams.cancelled(stream)

    def _flush_soon(self) -> None:
        """Send responses that are ready at the same time in one write."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport.is_closing():
            return
        out = self._connection.take()
        if out:
            self._transport.write(out)
        if self._connection.closed and not self._work and not self._streams.waiting:
            self._transport.close()


def _cancel_later(work: asyncio.Future[Any]) -> None:
    """Cancel a task after its first step: a coroutine that never began could not give back what its call took."""
    asyncio.get_running_loop().call_soon(work.cancel)


def _parsed(method: UnaryMethod, body: bytes) -> Any:
    try:
        return method.parse(body)
    except Exception:  # noqa: BLE001 - a decoder may raise anything for bytes that are not a message
        raise RpcError(Status.INTERNAL, "the message cannot be read") from None


def _remove_stale(path: str) -> None:
    """Remove a socket that no process listens on."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - a path of the socket API
        except OSError:
            return


def server_context(certificate: str, key: str, ca: str | None = None) -> ssl.SSLContext:
    """Return the TLS context for `start`, from PEM files. With `ca`, clients must present a certificate of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
