"""The sending side of a connection: frames, and responses as far as the peer's windows allow (RFC 9113 section 5.2)."""

from __future__ import annotations

from collections.abc import Iterable

from xds_server.unary_server import frames, grpc
from xds_server.unary_server.events import Stream
from xds_server.unary_server.frames import Code, ConnectionFault, Frame, Setting

Part = tuple[int, bytes]
"""The type of a frame and its payload. A payload of DATA may be split."""

# The headers of the three frames of a response, without the number of the stream and the length of DATA.
_HEADERS = frames.frame(Frame.HEADERS, frames.END_HEADERS, 0, grpc.HEADERS)[:5]
_DATA = frames.frame(Frame.DATA, 0, 0)[3:5]
_TRAILERS = frames.frame(Frame.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, grpc.TRAILERS)[:5]


class Outgoing:
    """Frames to send, the peer's windows and settings. `waiting` is the size of the responses that wait for windows."""

    def __init__(self) -> None:
        self.stream_window = 65_535
        self.waiting = 0
        self._window = 65_535
        self._frame = frames.SMALLEST_FRAME
        self._out: list[bytes] = []

    def add(self, frame: bytes) -> None:
        """Send a frame after the earlier ones."""
        self._out.append(frame)

    def take(self) -> bytes:
        """Return all bytes that are to be sent now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def at_once(self, stream: int, state: Stream, framed: bytes) -> bool:
        """Send a complete response in one piece. Returns False, and sends nothing, if the windows do not allow it."""
        if len(framed) > self._room(state):
            return False
        size, number = len(framed), stream.to_bytes(4, "big")
        state.window -= size
        self._window -= size
        self._out += (
            *(_HEADERS, number, grpc.HEADERS),
            *(size.to_bytes(3, "big"), _DATA, number, framed),
            *(_TRAILERS, number, grpc.TRAILERS),
        )
        return True

    def message(self, stream: int, state: Stream, framed: bytes) -> None:
        """Send a message of a stream in one piece. `send` is for messages that the windows do not allow."""
        size, number = len(framed), stream.to_bytes(4, "big")
        state.window -= size
        self._window -= size
        if not state.answered:
            state.answered = True
            self._out += (_HEADERS, number, grpc.HEADERS)
        self._out += (size.to_bytes(3, "big"), _DATA, number, framed)

    def fits(self, state: Stream, size: int) -> bool:
        """True if the windows allow a frame of this size now."""
        return not state.waiting and size <= self._room(state)

    def send(self, stream: int, state: Stream, parts: list[Part]) -> bool:
        """Send the parts of a response as far as the windows allow. Returns True if all is sent."""
        state.waiting = [*state.waiting, *parts] if state.waiting else parts
        self.waiting += sum(len(payload) for _, payload in parts)
        return self.flush(stream, state)

    def flush(self, stream: int, state: Stream) -> bool:
        """Send the rest of a response as far as the windows allow. Returns True if all is sent."""
        while state.waiting:
            kind, payload = state.waiting[0]
            size = len(payload)
            if kind == Frame.DATA:
                size = min(size, self._room(state))
                if size <= 0 < len(payload):
                    return False
                state.window -= size
                self._window -= size
            whole = size == len(payload)
            last = whole and len(state.waiting) == 1 and not state.open
            flags = (frames.END_HEADERS if kind == Frame.HEADERS else 0) | (frames.END_STREAM if last else 0)
            self._out.append(frames.frame(kind, flags, stream, payload[:size]))
            self.waiting -= size
            if whole:
                state.waiting.pop(0)
            else:
                state.waiting[0] = (kind, payload[size:])
        return True

    def forget(self, state: Stream) -> None:
        """Send no more of a response."""
        self.waiting -= sum(len(payload) for _, payload in state.waiting or ())

    def widen(self, increment: int) -> None:
        """Add to the peer's window for the connection (section 6.9). Raises ConnectionFault."""
        if increment == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "an increment of 0")
        self._window += increment
        if self._window > frames.LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window overflows")

    def _room(self, stream: Stream) -> int:
        return min(stream.window, self._window, self._frame)

    def settings(self, payload: bytes, streams: Iterable[Stream]) -> None:
        """Apply the peer's settings (section 6.5), which change the windows of `streams`. Raises ConnectionFault."""
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            self._set(key, int.from_bytes(payload[at + 2 : at + 6], "big"), streams)
        self._out.append(frames.SETTINGS_ACK)

    def _set(self, key: int, value: int, streams: Iterable[Stream]) -> None:
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH must be 0 or 1")
        if key == Setting.MAX_FRAME_SIZE:
            if not frames.SMALLEST_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
            self._frame = value
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of its range")
            more = value - self.stream_window
            self.stream_window = value
            for state in streams:
                state.window += more
                if state.window > frames.LARGEST_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a stream's window overflows")
