"""The receiving side of a connection: frames, field blocks in pieces, and the windows that we granted."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xds_server.unary_server import frames
from xds_server.unary_server.events import ServerLimits
from xds_server.unary_server.frames import Code, ConnectionFault, Frame

_HEAD = struct.Struct(">BHBBI")
"""The header of a frame: the length in two parts, type, flags, and the stream with its reserved bit."""


class Incoming:
    """Bytes of incomplete frames and field blocks, and the bounds of both."""

    def __init__(self, limits: ServerLimits) -> None:
        self.began = False
        """True if the preface has arrived."""
        self.stream_window = min(limits.max_message + 5, frames.LARGEST_WINDOW)
        self._limits = limits
        self._rest = b""
        self.block: tuple[int, int, bytearray] | None = None
        """Stream, flags and bytes of a field block that CONTINUATION continues."""
        self._window_left = max(limits.window, 65_535)
        """Bytes that the peer may still send on the connection."""
        self._unacknowledged = 0
        """Bytes that were processed and not yet returned to the peer's window."""

    def frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the frames that are complete with these bytes, as type, flags, stream and payload.

        Raises ConnectionFault.
        """
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
        """Return the length of the preface if it is complete, or else 0. Raises ConnectionFault."""
        seen = min(len(data), len(frames.PREFACE))
        if data[:seen] != frames.PREFACE[:seen]:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "not an HTTP/2 preface")
        self.began = seen == len(frames.PREFACE)
        return seen if self.began else 0

    def check_block(self, kind: int, stream: int) -> None:
        """Raise ConnectionFault if another frame interrupts a field `block` (section 4.3)."""
        if self.block is not None and (kind != Frame.CONTINUATION or stream != self.block[0]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "another frame interrupts a field block")

    def begin_block(self, stream: int, flags: int, block: bytes) -> None:
        """Store the first piece of a field block. Raises ConnectionFault."""
        self.block = (stream, flags, bytearray(block))
        self._check_size(len(block))

    def go_on_block(self, flags: int, more: bytes) -> tuple[int, bytes] | None:
        """Add the next piece. Returns the flags and bytes of the block if it is complete.

        Raises ConnectionFault.
        """
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
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "DATA exceeds the connection's window")

    @property
    def full(self) -> bool:
        """True if the peer may not send any more DATA on the connection."""
        return self._window_left == 0

    def consumed(self, size: int) -> int:
        """Count processed bytes. Returns the bytes to return to the peer's window now, so that few frames are needed."""
        self._unacknowledged += size
        half = self._limits.window // 2
        if self._unacknowledged <= half and self._window_left > half // 2:
            return 0
        given, self._unacknowledged = self._unacknowledged, 0
        self._window_left += given
        return given
