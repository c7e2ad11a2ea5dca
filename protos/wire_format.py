"""Fields of protobuf messages as bytes, to join messages that were serialized before.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator


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


def split(body: bytes, field: int) -> tuple[bytes, list[bytes]]:
    """Return a serialized message without a length-delimited field, and the values of that field.

    Raises ValueError for bytes that are no message.
    """
    rest, values, at = [], [], 0
    for number, start, end in _fields(body):
        if number == field:
            values.append(body[start:end])
        else:
            rest.append(body[at:end])
        at = end
    return b"".join(rest), values


def _fields(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field, 0 if it is not length-delimited, and the start and the end of its value."""
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        kind = tag & 7
        if kind == 2:
            length, at = _read_varint(body, at)
            start, at = at, at + length
        elif kind == 0:
            start = at
            _, at = _read_varint(body, at)
        elif kind in (1, 5):
            start, at = at, at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(body):
            raise ValueError("the message ends within a field")
        yield (tag >> 3 if kind == 2 else 0), start, at


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a varint, and the position behind it."""
    number = shift = 0
    while True:
        if at >= len(body) or shift > 63:
            raise ValueError("not a varint")
        byte = body[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
