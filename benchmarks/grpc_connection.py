"""The client's half of one HTTP/2 connection with gRPC streams, as small as thousands of them in one process need it.

Its windows and pings are those of Envoy. RFC 9113 has the frames, and gRPC's PROTOCOL-HTTP2.md the messages.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

import hpack

STREAM_WINDOW, CONNECTION_WINDOW = 16 << 20, 24 << 20
"""Bytes that the server may send before the client has read them: the defaults of Envoy."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW = 4
_FRAME, _DEFAULT_WINDOW = 16_384, 65_535


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


BEGIN = (
    _PREFACE
    + frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, STREAM_WINDOW))
    + frame(_WINDOW, 0, 0, struct.pack(">I", CONNECTION_WINDOW - _DEFAULT_WINDOW))
)


def request_headers(path: str) -> bytes:
    """Return the header block of a request. It has no state, so any connection can send it at any time (RFC 7541, 6.2.2)."""
    fields = (
        *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "xds")),
        *(("te", "trailers"), ("content-type", "application/grpc")),
    )
    return b"".join(b"\0" + b"".join(bytes([len(one)]) + one.encode() for one in pair) for pair in fields)


class GrpcConnection(asyncio.Protocol):
    """Opens streams, and sends and receives messages on them.

    `received` is called with a stream and a message; `ended` with a stream and why it has ended, or with 0 if the connection has.
    Both are called in the event loop.
    """

    __slots__ = (
        *("_buffer", "_ended", "_headers", "_initial", "_messages", "_next", "_received", "_room", "_rooms"),
        *("_unread", "_waiting", "transport"),
    )

    def __init__(self, received: Callable[[int, bytes], None], ended: Callable[[int, str], None]) -> None:
        self._received, self._ended = received, ended
        self._buffer = b""
        self._next = 1
        self._messages: dict[int, bytes] = {}
        self._room = self._initial = _DEFAULT_WINDOW
        self._rooms: dict[int, int] = {}
        self._unread = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._headers: list[tuple[int, bytes]] = []
        self.transport: asyncio.Transport | None = None

    @property
    def closing(self) -> bool:
        """True if the connection has ended, or is about to."""
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(BEGIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end."""
        self._end(f"connection lost: {exc!r}" if exc is not None else "connection closed")

    def open(self, headers: bytes) -> int:
        """Open a stream. Returns its number, which is never 0."""
        assert self.transport is not None
        stream, self._next = self._next, self._next + 2
        self._rooms[stream], self._messages[stream] = self._initial, b""
        self.transport.write(frame(_HEADERS, _END_HEADERS, stream, headers))
        return stream

    def send(self, stream: int, message: bytes) -> None:
        """Send a message as soon as the server's window has room."""
        self._waiting.append((stream, b"\0" + struct.pack(">I", len(message)) + message))
        self._flush()

    def ping(self) -> None:
        """Send a ping, as Envoy does by its `connection_keepalive`."""
        if self.transport is not None and not self.closing:
            self.transport.write(frame(_PING, 0, 0, b"\0" * 8))

    def close(self) -> None:
        """End the connection at once, without another call of `ended`."""
        self._ended = lambda _stream, _reason: None
        if self.transport is not None:
            self.transport.abort()

    def _end(self, reason: str) -> None:
        ended, self._ended = self._ended, lambda _stream, _reason: None
        ended(0, reason)
        if self.transport is not None:
            self.transport.abort()

    def _flush(self) -> None:
        if self.transport is None or self.closing:
            return
        while self._waiting:
            stream, data = self._waiting[0]
            if stream not in self._rooms:
                self._waiting.popleft()  # the stream has ended
                continue
            room = min(self._room, self._rooms[stream], _FRAME)
            if room <= 0:
                return
            part, rest = data[:room], data[room:]
            self.transport.write(frame(_DATA, 0, stream, part))
            self._room -= len(part)
            self._rooms[stream] -= len(part)
            if rest:
                self._waiting[0] = stream, rest
            else:
                self._waiting.popleft()

    def data_received(self, data: bytes) -> None:
        """Handle all frames that are complete."""
        buffer, at = self._buffer + data if self._buffer else data, 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3])
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9])
            self._frame(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self.transport is not None
        if kind == _DATA:
            self._data(stream, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            self._headers.append((stream, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self.transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW:
            self._more_room(stream, int.from_bytes(payload))
        elif kind == _GOAWAY:
            self._end("connection ended by the server")
        elif kind == _RESET:
            self._stream_ended(stream, "reset")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._stream_ended(stream, self._status(stream))

    def _stream_ended(self, stream: int, reason: str) -> None:
        if self._rooms.pop(stream, None) is not None:
            del self._messages[stream]
            self._ended(stream, reason)

    def _data(self, stream: int, payload: bytes) -> None:
        message = self._messages.get(stream, b"") + payload
        while len(message) >= 5 and len(message) >= (size := 5 + int.from_bytes(message[1:5])):
            self._received(stream, message[5:size])
            message = message[size:]
        if stream in self._messages:
            self._messages[stream] = message
        self._unread += len(payload)
        if self._unread > STREAM_WINDOW // 4 and self.transport is not None:
            for one in (0, stream):  # nearly all bytes come on one stream
                self.transport.write(frame(_WINDOW, 0, one, struct.pack(">I", self._unread)))
            self._unread = 0

    def _settings(self, payload: bytes) -> None:
        assert self.transport is not None
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW:
                for stream in self._rooms:
                    self._rooms[stream] += value - self._initial
                self._initial = value
        self.transport.write(frame(_SETTINGS, _ACK, 0, b""))
        self._flush()

    def _more_room(self, stream: int, more: int) -> None:
        if not stream:
            self._room += more
        elif stream in self._rooms:
            self._rooms[stream] += more
        self._flush()

    def _status(self, ended: int) -> str:
        """Return gRPC's status and message of a stream that has ended."""
        decoder = hpack.Decoder()
        found: dict[str, str] = {}
        for stream, block in self._headers:  # all of them, because a block can refer to earlier ones
            fields = decoder.decode(block)
            if stream == ended:
                found.update((str(name), str(value)) for name, value in fields)
        return f"grpc-status {found.get('grpc-status')}: {found.get('grpc-message', '')}"
