"""What a connection sends: frames, and answers as far as the peer's windows allow (RFC 9113 section 5.2)."""

from __future__ import annotations

from collections.abc import Iterable

from xds_server.unary_server import frames, grpc
from xds_server.unary_server.events import Stream
from xds_server.unary_server.frames import Code, ConnectionFault, Frame, Setting

Part = tuple[int, bytes]
"""The type of a frame, and its payload, which may be cut where it is DATA."""

# The headers of the three frames of an answer, but for the stream's number that ends them and the length of DATA.
_HEADERS = frames.frame(Frame.HEADERS, frames.END_HEADERS, 0, grpc.HEADERS)[:5]
_DATA = frames.frame(Frame.DATA, 0, 0)[3:5]
_TRAILERS = frames.frame(Frame.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, grpc.TRAILERS)[:5]


class Outgoing:
    """Frames to send, the peer's windows and settings. `waiting` is the size of the answers that wait for windows."""

    def __init__(self) -> None:
        self.stream_window = 65_535
        self.waiting = 0
        self._window = 65_535
        self._frame = frames.SMALLEST_FRAME
        self._out: list[bytes] = []

    def add(self, frame: bytes) -> None:
        """Send a frame after those before it."""
        self._out.append(frame)

    def take(self) -> bytes:
        """All that is to be sent now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def at_once(self, stream: int, one: Stream, framed: bytes) -> bool:
        """Send a whole answer in one piece; False when the windows do not allow it, and nothing was sent."""
        if len(framed) > self._room(one):
            return False
        size, number = len(framed), stream.to_bytes(4, "big")
        one.window -= size
        self._window -= size
        self._out += (
            *(_HEADERS, number, grpc.HEADERS),
            *(size.to_bytes(3, "big"), _DATA, number, framed),
            *(_TRAILERS, number, grpc.TRAILERS),
        )
        return True

    def send(self, stream: int, one: Stream, parts: list[Part]) -> bool:
        """Send the parts of an answer as windows allow. Returns whether all is sent."""
        one.waiting = parts
        self.waiting += sum(len(payload) for _, payload in parts)
        return self.flush(stream, one)

    def flush(self, stream: int, one: Stream) -> bool:
        """Send of an answer what the peer's windows allow. Returns whether all is sent."""
        while one.waiting:
            kind, payload = one.waiting[0]
            size = len(payload)
            if kind == Frame.DATA:
                size = min(size, self._room(one))
                if size <= 0 < len(payload):
                    return False
                one.window -= size
                self._window -= size
            whole = size == len(payload)
            last = whole and len(one.waiting) == 1
            flags = (frames.END_HEADERS if kind == Frame.HEADERS else 0) | (frames.END_STREAM if last else 0)
            self._out.append(frames.frame(kind, flags, stream, payload[:size]))
            self.waiting -= size
            if whole:
                one.waiting.pop(0)
            else:
                one.waiting[0] = (kind, payload[size:])
        return True

    def forget(self, one: Stream) -> None:
        """Send no more of an answer."""
        self.waiting -= sum(len(payload) for _, payload in one.waiting or ())

    def widen(self, increment: int) -> None:
        """The peer takes more on this connection (section 6.9). Raises ConnectionFault."""
        if increment == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "an increment of 0")
        self._window += increment
        if self._window > frames.LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window overflows")

    def _room(self, stream: Stream) -> int:
        return min(stream.window, self._window, self._frame)

    def settings(self, payload: bytes, streams: Iterable[Stream]) -> None:
        """Take the peer's settings (section 6.5), which move the windows of `streams`. Raises ConnectionFault."""
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            self._set(key, int.from_bytes(payload[at + 2 : at + 6], "big"), streams)
        self._out.append(frames.SETTINGS_ACK)

    def _set(self, key: int, value: int, streams: Iterable[Stream]) -> None:
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if key == Setting.MAX_FRAME_SIZE:
            if not frames.SMALLEST_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
            self._frame = value
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of its range")
            more = value - self.stream_window
            self.stream_window = value
            for one in streams:
                one.window += more
                if one.window > frames.LARGEST_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a stream's window overflows")
