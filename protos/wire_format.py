"""Fields of protobuf messages as bytes, to join messages that were serialized before.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number of 0 or more as a varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def head(field: int, length: int) -> bytes:
    """The beginning of a length-delimited field of `length` bytes: a text, bytes or a message."""
    return varint(field << 3 | 2) + varint(length)


def delimited(field: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return head(field, len(body)) + body
