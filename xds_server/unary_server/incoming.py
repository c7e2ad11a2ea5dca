"""What a connection receives, before it means anything: frames, field blocks in pieces, and the windows that we gave."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xds_server.unary_server import frames
from xds_server.unary_server.events import Limits
from xds_server.unary_server.frames import Code, ConnectionFault, Frame

_HEAD = struct.Struct(">BHBBI")
"""A frame's header: the length in two parts, type, flags, and the stream with its reserved bit."""


class Incoming:
    """Bytes that are no whole frame yet, and the bounds of everything that waits for more."""

    def __init__(self, limits: Limits) -> None:
        self.began = False
        """Whether the preface has come."""
        self.stream_window = min(limits.max_message + 5, frames.LARGEST_WINDOW)
        self._limits = limits
        self._rest = b""
        self.block: tuple[int, int, bytearray] | None = None
        """Stream, flags and bytes of a field block that CONTINUATION goes on with."""
        self._window_left = max(limits.window, 65_535)
        """Bytes that the peer may still send, and has not got back."""
        self._unacknowledged = 0
        """Bytes that were worked on and are not given back to the peer's window yet."""

    def frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """The frames that are whole with these bytes, as type, flags, stream and payload. Raises ConnectionFault."""
        if self._rest:
            data = self._rest + data
        position, end, most = 0, len(data), self._limits.max_frame
        try:
            if not self.began:
                position = self._preface(data)
            while self.began and end - position >= frames.HEAD:
                high, low, kind, flags, stream = _HEAD.unpack_from(data, position)
                length = high << 16 | low
                if length > most:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
                begin = position + frames.HEAD
                if begin + length > end:
                    return
                position = begin + length
                yield kind, flags, stream & 0x7FFF_FFFF, data[begin:position]
        finally:
            self._rest = data[position:]

    def _preface(self, data: bytes) -> int:
        """Returns its length once it is there. Raises ConnectionFault."""
        seen = min(len(data), len(frames.PREFACE))
        if data[:seen] != frames.PREFACE[:seen]:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "not the preface of HTTP/2")
        self.began = seen == len(frames.PREFACE)
        return seen if self.began else 0

    def check_block(self, kind: int, stream: int) -> None:
        """A field `block` is not interrupted (section 4.3). Raises ConnectionFault."""
        if self.block is not None and (kind != Frame.CONTINUATION or stream != self.block[0]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a field block is not interrupted")

    def begin_block(self, stream: int, flags: int, block: bytes) -> None:
        """Keep the first piece of a field block. Raises ConnectionFault."""
        self.block = (stream, flags, bytearray(block))
        self._check_size(len(block))

    def go_on_block(self, flags: int, more: bytes) -> tuple[int, bytes] | None:
        """Take the next piece; returns the flags and bytes of the whole block. Raises ConnectionFault."""
        if self.block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, block = self.block
        block += more
        self._check_size(len(block))
        if not flags & frames.END_HEADERS:
            return None
        self.block = None
        return first_flags, bytes(block)

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_header_block:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a field block is too large")

    def take_in(self, size: int) -> None:
        """Count DATA against the connection's window. Raises ConnectionFault."""
        self._window_left -= size
        if self._window_left < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more than the connection's window")

    @property
    def full(self) -> bool:
        """Whether the peer may send no more DATA on the connection."""
        return self._window_left == 0

    def consumed(self, size: int) -> int:
        """Count what was worked on; returns how much to give back to the peer now, so that it takes few frames."""
        self._unacknowledged += size
        half = self._limits.window // 2
        if self._unacknowledged <= half and self._window_left > half // 2:
            return 0
        given, self._unacknowledged = self._unacknowledged, 0
        self._window_left += given
        return given
