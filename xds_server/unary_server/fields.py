"""Header fields of requests: decoded from HPACK (RFC 7541), and checked (RFC 9113 section 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import hpack

from xds_server.unary_server.frames import Code, ConnectionFault, StreamFault

MOST_CACHED, LARGEST_CACHED = 1024, 1024
"""Blocks whose meaning is kept, and the bytes of the largest one."""
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
_CONNECTION_SPECIFIC = frozenset(
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"]
)
_PSEUDO = frozenset([b":method", b":scheme", b":path", b":authority"])


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a request that a gRPC server needs. A missing field is empty.

    `metadata` are all fields but the pseudo-header ones. Of several with the same name it has the last.
    """

    method: bytes
    path: bytes
    content_type: bytes = b""
    timeout: bytes = b""
    encoding: bytes = b""
    content_length: int | None = None
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)


class FieldDecoder:
    """Decodes the field blocks of one connection, in their order.

    A block that does not change the dynamic table has the same meaning until the table changes. Clients send the same
    block again and again, so results are cached until the table changes.
    """

    def __init__(self, most: int, table: int) -> None:
        """`most` bounds the bytes of a list of fields, `table` those of the dynamic table."""
        self._decoder = hpack.Decoder(max_header_list_size=most)
        self._decoder.max_allowed_table_size = max(table, self._decoder.header_table.maxsize)
        self._kept: dict[bytes, Fields] = {}

    def request(self, stream: int, block: bytes) -> Fields:
        """Return the fields of a request. Raises ConnectionFault, or StreamFault if they are malformed."""
        known = self._kept.get(block)
        if known is not None:
            return known
        before = self._table()
        pairs = self._decode(block)
        changed = self._changed(before)
        if changed:
            self._kept.clear()
        fields = _request(stream, pairs)
        if not changed and len(self._kept) < MOST_CACHED and len(block) <= LARGEST_CACHED:
            self._kept[block] = fields
        return fields

    def pairs(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields of any block. Unneeded blocks must be decoded too, because they change the table.

        Raises ConnectionFault.
        """
        before = self._table()
        pairs = self._decode(block)
        if self._changed(before):
            self._kept.clear()
        return pairs

    def _table(self) -> tuple[int, int, object]:
        """Return values that every insertion, eviction and resize changes: an insertion puts a new object first."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (table.maxsize, len(entries), entries[0] if entries else None)

    def _changed(self, before: tuple[int, int, object]) -> bool:
        now = self._table()
        return now[:2] != before[:2] or now[2] is not before[2]

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the header list is too large") from None
        except (hpack.HPACKError, ValueError, IndexError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"not HPACK: {error}") from None


def check_trailers(stream: int, pairs: list[tuple[bytes, bytes]]) -> None:
    """Raise StreamFault for fields that trailers must not have (RFC 9113 section 8.1)."""
    for name, value in pairs:
        if name.startswith(b":"):
            raise StreamFault(stream, Code.PROTOCOL_ERROR, "trailers must not have pseudo-header fields")
        _check(stream, name, value)


def _check(stream: int, name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "a field's name is malformed")
    if not _VALUE.fullmatch(value):
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "a field's value is malformed")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "a connection-specific field")


def _request(stream: int, pairs: list[tuple[bytes, bytes]]) -> Fields:
    pseudo: dict[bytes, bytes] = {}
    plain: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name.startswith(b":"):
            if plain or name in pseudo or name not in _PSEUDO or not _VALUE.fullmatch(value):
                raise StreamFault(stream, Code.PROTOCOL_ERROR, "pseudo-header fields are malformed")
            pseudo[name] = value
        else:
            _check(stream, name, value)
            if name == b"content-length" and plain.get(name, value) != value:
                raise StreamFault(stream, Code.PROTOCOL_ERROR, "two content lengths")
            plain[name] = value
    if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "a pseudo-header field is missing")
    length = plain.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 16):
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "the content length is not a number")
    return Fields(
        pseudo[b":method"],
        pseudo[b":path"],
        plain.get(b"content-type", b""),
        plain.get(b"grpc-timeout", b""),
        plain.get(b"grpc-encoding", b""),
        None if length is None else int(length),
        plain,
    )
