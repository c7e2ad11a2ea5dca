"""What a connection receives, before it means anything: frames, field blocks in pieces, and the windows that we gave."""

from __future__ import annotations

from collections.abc import Iterator

from xds_server.unary_server import frames
from xds_server.unary_server.events import Limits
from xds_server.unary_server.frames import Code, ConnectionFault, Frame


class Incoming:
    """Bytes that are no whole frame yet, and the bounds of everything that waits for more."""

    def __init__(self, limits: Limits) -> None:
        self.began = False
        """Whether the preface has come."""
        self.stream_window = min(limits.max_message + 5, frames.LARGEST_WINDOW)
        self._limits = limits
        self._in = bytearray()
        self._block: tuple[int, int, bytearray] | None = None
        """Stream, flags and bytes of a field block that CONTINUATION goes on with."""
        self._window_left = max(limits.window, 65_535)
        """Bytes that the peer may still send, and has not got back."""
        self._unacknowledged = 0
        """Bytes that were worked on and are not given back to the peer's window yet."""

    def add(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._in += data

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The whole frames so far, as type, flags, stream and payload. Raises ConnectionFault."""
        if not self.began and not self._preface():
            return
        data, position, end = self._in, 0, len(self._in)
        try:
            while end - position >= frames.HEAD:
                length = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
                if length > self._limits.max_frame:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
                after = position + frames.HEAD + length
                if after > end:
                    return
                stream = int.from_bytes(data[position + 5 : position + 9], "big") & 0x7FFF_FFFF
                begin, position = position, after
                yield data[begin + 3], data[begin + 4], stream, bytes(data[begin + frames.HEAD : after])
        finally:
            del data[:position]

    def _preface(self) -> bool:
        seen = min(len(self._in), len(frames.PREFACE))
        if self._in[:seen] != frames.PREFACE[:seen]:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "not the preface of HTTP/2")
        if seen < len(frames.PREFACE):
            return False
        del self._in[:seen]
        self.began = True
        return True

    def check_block(self, kind: int, stream: int) -> None:
        """A field block is not interrupted (section 4.3). Raises ConnectionFault."""
        if self._block is not None and (kind != Frame.CONTINUATION or stream != self._block[0]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a field block is not interrupted")

    def begin_block(self, stream: int, flags: int, block: bytes) -> None:
        """Keep the first piece of a field block. Raises ConnectionFault."""
        self._block = (stream, flags, bytearray(block))
        self._check_size(len(block))

    def go_on_block(self, flags: int, more: bytes) -> tuple[int, bytes] | None:
        """Take the next piece; returns the flags and bytes of the whole block. Raises ConnectionFault."""
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, block = self._block
        block += more
        self._check_size(len(block))
        if not flags & frames.END_HEADERS:
            return None
        self._block = None
        return first_flags, bytes(block)

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_header_block:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a field block is too large")

    def take_in(self, size: int) -> None:
        """Count DATA against the connection's window. Raises ConnectionFault."""
        self._window_left -= size
        if self._window_left < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more than the connection's window")

    def consumed(self, size: int) -> int:
        """Count what was worked on; returns how much to give back to the peer now, so that it takes few frames."""
        self._unacknowledged += size
        if self._unacknowledged <= self._limits.window // 2:
            return 0
        given, self._unacknowledged = self._unacknowledged, 0
        self._window_left += given
        return given
