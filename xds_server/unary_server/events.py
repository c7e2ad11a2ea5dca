"""What a connection is limited to, what it tells, and what it knows of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xds_server.unary_server import frames
from xds_server.unary_server.fields import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one peer may use. Sizes are in bytes."""

    max_message: int = 4 << 20
    max_streams: int = 1000
    max_header_block: int = 16 << 10
    max_frame: int = frames.SMALLEST_FRAME
    window: int = 8 << 20
    """Bytes of requests that a connection may hold at once."""
    max_answer_buffer: int = 16 << 20
    """Bytes of answers that may wait for a slow reader."""
    max_idle_frames: int = 10_000
    """Frames without progress (PING, SETTINGS, PRIORITY, empty DATA, resets) since the last finished request."""


class Request(NamedTuple):
    """A whole request came in; it wants exactly one `answer`, `fail` or `refuse`."""

    stream: int
    fields: Fields
    body: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client gave a request up; whatever works on it may stop, and `release` says when it did."""

    stream: int


@dataclass(frozen=True, slots=True)
class Unread:
    """The client gave a request up that is answered already: it had not read the answer then."""

    stream: int


Event = Request | Cancelled | Unread


@dataclass(slots=True)
class Stream:
    """`ended` when the request is whole, `reset` when the client gave up and our work has not ended yet."""

    fields: Fields
    window: int
    body: bytes | bytearray = b""
    ended: bool = False
    reset: bool = False
    waiting: list[tuple[int, bytes]] | None = None
    """What of the answer has not gone out: (frame type, payload), the last one ends the stream."""

    def add(self, data: bytes) -> None:
        """Take a piece of the body. Most bodies are one piece."""
        if not self.body:
            self.body = data
            return
        if type(self.body) is bytes:
            self.body = bytearray(self.body)
        self.body += data
