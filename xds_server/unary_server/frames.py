"""HTTP/2 frames as bytes (RFC 9113 sections 4 and 6): types, error codes, settings, reading and writing."""

from __future__ import annotations

from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
"""Bytes of a frame's header."""
LARGEST_WINDOW = 2**31 - 1
SMALLEST_FRAME, LARGEST_FRAME = 1 << 14, (1 << 24) - 1

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20


class Frame(IntEnum):
    """The types of frames (section 6)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):  # noqa: N818 - ends a connection, never leaves this package
    """The peer violated the protocol. The connection ends with GOAWAY (section 5.4.1)."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFault(Exception):  # noqa: N818 - as above, for one stream
    """The peer violated the protocol on one stream. The stream ends with RST_STREAM (section 5.4.2)."""

    def __init__(self, stream: int, code: Code, message: str) -> None:
        super().__init__(message)
        self.stream = stream
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return b"".join(
        (len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload)
    )


def settings(values: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    body = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(Frame.SETTINGS, 0, 0, body)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(Frame.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def rst_stream(stream: int, code: Code) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(Frame.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: Code, message: str = "") -> bytes:
    """Return a GOAWAY frame."""
    return frame(
        Frame.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + message.encode()[:200]
    )


SETTINGS_ACK = frame(Frame.SETTINGS, ACK, 0)


def unpadded(payload: bytes, flags: int, kind: Frame) -> bytes:
    """Return the payload without its padding (sections 6.1 and 6.2). Raises ConnectionFault."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{kind.name} has no pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"{kind.name} has more padding than payload")
    return payload[1 : len(payload) - padding]


def unprioritized(payload: bytes, flags: int) -> bytes:
    """Return HEADERS without the priority fields, which are ignored (section 5.3.2). Raises ConnectionFault."""
    if not flags & PRIORITIZED:
        return payload
    if len(payload) < 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
    return payload[5:]
