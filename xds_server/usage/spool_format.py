"""Records of the spool as bytes. It does no IO.

A record is a header and a payload. The header has MAGIC, a CRC-32 of all that follows it, the length of the payload,
the second of its arrival, and a hash of the payload (BLAKE2b), which identifies the batch.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

MAGIC = b"XUS1"
_HEAD = struct.Struct(">4sI")
_REST = struct.Struct(">IQ16s")
HEADER = _HEAD.size + _REST.size
LONGEST = 8 << 20
"""The maximum number of bytes of a payload."""


class Record(NamedTuple):
    """One batch. `arrival` is in Unix seconds."""

    arrival: int
    batch: bytes
    payload: bytes


class Found(NamedTuple):
    """A record and the offset of its end. `skipped` bytes before it were no record."""

    record: Record
    end: int
    skipped: int


def encode(payload: bytes, arrival: int) -> bytes:
    """Return a record as bytes."""
    rest = _REST.pack(len(payload), arrival, blake2b(payload, digest_size=16).digest())
    return _HEAD.pack(MAGIC, zlib.crc32(payload, zlib.crc32(rest))) + rest + payload


def scan(data: bytes) -> Iterator[Found]:
    """Yield the records that are complete in these bytes. Bytes that are no record are skipped up to the next one."""
    at = end = 0
    while (at := data.find(MAGIC, at)) >= 0:
        record = _record(data, at)
        if record is None:
            at += 1
            continue
        skipped = at - end
        at = end = at + HEADER + len(record.payload)
        yield Found(record, end, skipped)


def _record(data: bytes, at: int) -> Record | None:
    if at + HEADER > len(data):
        return None
    checksum = _HEAD.unpack_from(data, at)[1]
    length, arrival, batch = _REST.unpack_from(data, at + _HEAD.size)
    begin = at + HEADER
    if length > LONGEST or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    if zlib.crc32(payload, zlib.crc32(data[at + _HEAD.size : begin])) != checksum:
        return None
    return Record(arrival, batch, payload)
