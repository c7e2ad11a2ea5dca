"""The limits of a connection, its events, and the state of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xds_server.unary_server import frames
from xds_server.unary_server.fields import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The resources that one peer may use. Sizes are in bytes."""

    max_message: int = 4 << 20
    max_streams: int = 1000
    max_header_block: int = 16 << 10
    field_table: int = 64 << 10
    """Bytes of the table of repeated fields. A client may use less (RFC 7541 section 4.2)."""
    max_frame: int = frames.SMALLEST_FRAME
    window: int = 8 << 20
    """Bytes of requests that a connection may hold at once."""
    max_answer_buffer: int = 16 << 20
    """Bytes of responses that may wait for a slow reader."""
    max_idle_frames: int = 10_000
    """Frames without progress (PING, SETTINGS, PRIORITY, empty DATA, resets) since the last finished request."""


class Request(NamedTuple):
    """A complete request has arrived. It needs exactly one call of `answer`, `fail` or `refuse`."""

    stream: int
    fields: Fields
    body: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client cancelled a request or a stream. The work on it may stop; call `release` when it has ended."""

    stream: int


@dataclass(frozen=True, slots=True)
class Unread:
    """The client cancelled a request after the response was sent, and it had not read the response."""

    stream: int


@dataclass(frozen=True, slots=True)
class Began:
    """A stream has begun, of a method whose path is among the connection's `streaming` ones."""

    stream: int
    fields: Fields


class Message(NamedTuple):
    """A message of a stream. The next one comes after `proceed`. It may be answered with `respond` before."""

    stream: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The client has sent all messages of a stream. The stream ends with `finish` or `fail`."""

    stream: int


Event = Request | Cancelled | Unread | Began | Message | Ended


@dataclass(slots=True)
class Stream:
    """The state of one stream.

    `ended` is true if the request is complete. `reset` is true if the client cancelled it while our work on it goes
    on. `streams` is true if its messages are handled one by one, each when the one before is done with.
    """

    fields: Fields
    window: int
    body: bytes | bytearray = b""
    ended: bool = False
    reset: bool = False
    waiting: list[tuple[int, bytes]] | None = None
    """The unsent parts of the response as (frame type, payload). The last part ends the stream, unless it is `open`."""
    streams: bool = False
    open: bool = False
    """True if more responses may follow."""
    answered: bool = False
    """True if the fields before the first response were sent."""
    busy: bool = False
    """True if a message, or the end of the messages, is with the caller."""
    size: int = 0
    """Bytes of all DATA of a stream."""
    unreturned: int = 0
    """Bytes of messages that were handled and not yet returned to the window of a stream."""

    def add(self, data: bytes) -> None:
        """Add a piece of the body. Most bodies are one piece."""
        if not self.body:
            self.body = data
            return
        if type(self.body) is bytes:
            self.body = bytearray(self.body)
        self.body += data

    def drop(self, size: int) -> None:
        """Remove the first `size` bytes of the body. Most bodies are one message."""
        if size == len(self.body):
            self.body = b""
        elif type(self.body) is bytes:
            self.body = bytearray(self.body)[size:]
        else:
            del self.body[:size]  # type: ignore[union-attr]
