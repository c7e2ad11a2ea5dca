"""gRPC over HTTP/2 for unary calls: messages, timeouts, and responses as field blocks that are made once.

The protocol is grpc/doc/PROTOCOL-HTTP2.md. Responses do not use the dynamic table, so a block has the same bytes for
every client.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from urllib.parse import quote

from filters.unary import RpcError
from xds_server.unary_server.fields import Fields

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")


class Status(IntEnum):
    """The status codes that the server itself returns."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


def is_call(fields: Fields) -> bool:
    """True if a request has the method and the content type of a gRPC call."""
    return fields.method == b"POST" and fields.content_type.startswith(b"application/grpc")


def timeout(fields: Fields) -> float | None:
    """Return the client's timeout in seconds, or None if there is none. Raises RpcError if it is malformed."""
    if not fields.timeout:
        return None
    match = _TIMEOUT.fullmatch(fields.timeout)
    if match is None:
        raise RpcError(Status.INTERNAL, "grpc-timeout is malformed")
    return int(match[1]) * _UNITS[match[2]]


def message(body: bytes, most: int) -> bytes:
    """Return the one message of a unary request. Raises RpcError if there is not exactly one."""
    if len(body) < 5:
        raise RpcError(Status.INTERNAL, "the request has no complete message")
    length = message_size(body, most)
    if len(body) != length + 5:
        what = "more than one message" if len(body) > length + 5 else "an incomplete message"
        raise RpcError(Status.INTERNAL, f"the request has {what}")
    return body[5:]


def message_size(head: bytes | bytearray, most: int) -> int:
    """Return the length of the message whose flag and length these five bytes are. Raises RpcError."""
    if head[0] == 1:
        raise RpcError(Status.UNIMPLEMENTED, "compressed messages are not supported")
    if head[0]:
        raise RpcError(Status.INTERNAL, "the message's flag is malformed")
    length = int.from_bytes(head[1:5], "big")
    if length > most:
        raise RpcError(Status.RESOURCE_EXHAUSTED, f"a message is at most {most} bytes")
    return length


def framed(body: bytes) -> bytes:
    """Return a message as it is in DATA, with its flag and its length."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a field without indexing and without Huffman coding (RFC 7541 section 6.2.2)."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    length, out = len(text) - 127, bytearray((127,))
    while length >= 128:
        out.append(length % 128 + 128)
        length //= 128
    out.append(length)
    return bytes(out) + text


_OK = b"\x88"  # :status 200, from the static table
HEADERS = _OK + _literal(b"content-type", b"application/grpc")
"""The fields before the message."""
TRAILERS = _literal(b"grpc-status", b"0")
"""The fields after the message."""


@lru_cache(maxsize=256)
def failed(code: int, text: str) -> bytes:
    """Return the fields of a response without a message ("Trailers-Only")."""
    more = _literal(b"grpc-accept-encoding", b"identity") if code == Status.UNIMPLEMENTED else b""
    return HEADERS + failed_late(code, text) + more


@lru_cache(maxsize=256)
def failed_late(code: int, text: str) -> bytes:
    """Return the fields that end a stream with an error after its first response."""
    status = _literal(b"grpc-status", str(int(code)).encode())
    message = quote(text[:1000], safe=" !#$&'()*+,/:;=?@[]~").encode()
    return status + _literal(b"grpc-message", message)


def refused(status: int) -> bytes:
    """Return the fields of a response to a request that is not gRPC, such as 415."""
    return _literal(b":status", str(status).encode())
