"""HTTP/2 for tests: one request of a client, and the server side of a stub (RFC 9113), by h2.

grpcio cannot send a request from an address of the test's own, shows no HTTP status and headers of a response that is not
gRPC, and its server cannot send such a response.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client of HTTP/2 (RFC 9113 section 3.4)."""
_READ = 65536
_FRAME_HEADER, _GOAWAY = 9, 0x7
"""The size of what precedes a frame, whose first three bytes are its length and whose fourth is its type (section 4.1)."""
Headers = Sequence[tuple[str, str]]
"""Names in lower case, pseudo-headers first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or a response. None as `trailers` means that there are none.

    One that is `streamed` ends after its headers, also if its body is empty.
    """

    headers: Headers
    body: bytes = b""
    trailers: Headers | None = None
    streamed: bool = False


@dataclass(slots=True)
class _Incoming:
    headers: Headers = ()
    body: bytearray = field(default_factory=bytearray)
    trailers: Headers | None = None

    @property
    def message(self) -> Message:
        return Message(headers=self.headers, body=bytes(self.body), trailers=self.trailers)


class _Graceful:
    """Removes GOAWAY frames that say that no request after those on their way is answered (RFC 9113 section 6.8).

    h2 would reject what comes on the streams after such a frame (findings/h2-graceful-goaway.sh). `preface` is what precedes
    the frames.
    """

    def __init__(self, preface: bytes) -> None:
        self._data = bytearray()
        self._preface = len(preface)

    def without(self, data: bytes) -> bytes:
        """Return the whole frames that data ends, but not those."""
        self._data += data
        kept = bytearray(self._data[: self._preface])
        del self._data[: self._preface]
        self._preface -= len(kept)
        while len(self._data) >= _FRAME_HEADER:
            end = _FRAME_HEADER + int.from_bytes(self._data[:3], "big")
            if len(self._data) < end:
                break
            frame = self._data[:end]
            code = frame[_FRAME_HEADER + 4 : _FRAME_HEADER + 8]
            if frame[3] != _GOAWAY or any(code):
                kept += frame
            del self._data[:end]
        return bytes(kept)


class _Connection:
    """One end of a connection: it sends bodies as fast as the other end wants them."""

    def __init__(self, *, client: bool) -> None:
        # tests may send what a client should not, because it is the gateway that has to cope with it
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self._bodies: dict[int, tuple[memoryview, Headers | None]] = {}
        self._incoming: dict[int, _Incoming] = {}
        self._graceful = _Graceful(b"" if client else PREFACE)

    def send(self, stream: int, message: Message) -> None:
        """Send a message and end the stream."""
        if not message.body and message.trailers is None and not message.streamed:
            self.h2.send_headers(stream, message.headers, end_stream=True)
            return
        self.h2.send_headers(stream, message.headers)
        self._bodies[stream] = memoryview(message.body), message.trailers
        self._go_on()

    def _go_on(self) -> None:
        for stream, (body, trailers) in tuple(self._bodies.items()):
            sent = bool(body)
            while body:
                size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if size <= 0:
                    break
                self.h2.send_data(
                    stream, bytes(body[:size]), end_stream=len(body) <= size and trailers is None
                )
                body = body[size:]
            if body:
                self._bodies[stream] = body, trailers
                continue
            del self._bodies[stream]
            if trailers is not None:
                self.h2.send_headers(stream, trailers, end_stream=True)
            elif not sent:
                self.h2.end_stream(stream)

    def receive(self, data: bytes) -> tuple[deque[tuple[int, Message]], list[h2.events.Event]]:
        """Return the whole messages that data ends, by stream, and resets. Raises h2.exceptions.ProtocolError."""
        whole: deque[tuple[int, Message]] = deque()
        ends: list[h2.events.Event] = []
        for event in self.h2.receive_data(self._graceful.without(data)):
            match event:
                case h2.events.RequestReceived() | h2.events.ResponseReceived():
                    self._incoming[event.stream_id] = _Incoming(_text(event.headers))
                case h2.events.DataReceived():
                    self._incoming[event.stream_id].body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived():
                    self._incoming[event.stream_id].trailers = _text(event.headers)
                case h2.events.StreamEnded():
                    whole.append((event.stream_id, self._incoming.pop(event.stream_id).message))
                case h2.events.StreamReset():
                    self._incoming.pop(event.stream_id, None)
                    self._bodies.pop(event.stream_id, None)
                    ends.append(event)
                case h2.events.ConnectionTerminated():
                    ends.append(event)
        self._go_on()
        return whole, ends


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


async def exchange(
    address: tuple[str, int], source: str, request: Message, tls: ssl.SSLContext | None, server_name: str
) -> Message:
    """Send a request from the address `source` over a connection of its own, and return the response. Raises OSError.

    Without `tls`, the server is known to speak HTTP/2 (RFC 9113 section 3.3).
    """
    reader, writer = await asyncio.open_connection(
        *address, local_addr=(source, 0), ssl=tls, server_hostname=server_name if tls else None
    )
    try:
        if tls is not None and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            raise ConnectionError("the gateway does not offer HTTP/2 (ALPN h2)")
        connection = _Connection(client=True)
        stream = connection.h2.get_next_available_stream_id()
        connection.send(stream, request)
        while True:
            writer.write(connection.h2.data_to_send())
            data = await reader.read(_READ)
            if not data:
                raise ConnectionError("the gateway closed the connection")
            whole, ends = connection.receive(data)
            if whole:
                return whole[0][1]
            if ends:
                raise ConnectionError(_end(ends[0]))
    except h2.exceptions.ProtocolError as error:
        raise ConnectionError(f"the gateway broke HTTP/2: {error}") from None
    finally:
        writer.transport.abort()


def _end(event: h2.events.Event) -> str:
    code = getattr(event, "error_code", None)
    name = code.name if isinstance(code, h2.errors.ErrorCodes) else str(code)
    what = "reset the request" if isinstance(event, h2.events.StreamReset) else "closed the connection"
    return f"the gateway {what} ({name})"


class Server(asyncio.Protocol):
    """One connection of a server. `answer` returns the response to each request."""

    def __init__(self, answer: Callable[[Message], Awaitable[Message]]) -> None:
        self._answer = answer
        self._connection = _Connection(client=False)
        self._transport: asyncio.Transport | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the settings."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the requests, for whose answers nobody waits any more."""
        for task in self._tasks.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are whole now."""
        assert self._transport is not None
        try:
            whole, ends = self._connection.receive(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self._transport.close()
            return
        for stream, request in whole:
            task = asyncio.create_task(self._respond(stream, request))
            self._tasks[stream] = task
            task.add_done_callback(lambda _, stream=stream: self._tasks.pop(stream, None))  # type: ignore[misc]
        for event in ends:
            if isinstance(event, h2.events.StreamReset) and event.stream_id in self._tasks:
                self._tasks[event.stream_id].cancel()
        self._flush()

    async def _respond(self, stream: int, request: Message) -> None:
        answer = await self._answer(request)
        try:
            self._connection.send(stream, answer)
        except h2.exceptions.ProtocolError:
            return  # the client has given up
        self._flush()

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._connection.h2.data_to_send())


class EitherVersion(asyncio.Protocol):
    """A connection that becomes one of HTTP/1.1 or HTTP/2 by its first bytes."""

    def __init__(self, http1: Callable[[], asyncio.Protocol], http2: Callable[[], asyncio.Protocol]) -> None:
        self._versions = http1, http2
        self._data = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand the connection over when its version is known."""
        self._data += data
        start = self._data[: len(PREFACE)]
        if PREFACE.startswith(start) and len(start) < len(PREFACE):
            return
        assert isinstance(self._transport, asyncio.Transport)
        protocol = self._versions[start == PREFACE]()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._data)
