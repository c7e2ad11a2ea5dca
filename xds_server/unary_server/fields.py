"""Header fields of requests: decoded from HPACK (RFC 7541), and checked (RFC 9113 section 8)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import hpack

from xds_server.unary_server.frames import Code, ConnectionFault, StreamFault

MOST_CACHED = 64
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
_CONNECTION_SPECIFIC = frozenset(
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"]
)
_PSEUDO = frozenset([b":method", b":scheme", b":path", b":authority"])


@dataclass(frozen=True, slots=True)
class Fields:
    """What a server for unary methods needs of a request's fields; empty where a field is missing."""

    method: bytes
    path: bytes
    content_type: bytes = b""
    timeout: bytes = b""
    encoding: bytes = b""
    content_length: int | None = None


class FieldDecoder:
    """Decodes the field blocks of one connection, in their order.

    A block that leaves the dynamic table alone means the same as long as the table stays as it is: clients send
    the same block again and again, so the results are kept until the table changes.
    """

    def __init__(self, most: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=most)
        self._decoder.max_allowed_table_size = self._decoder.header_table.maxsize
        self._kept: dict[bytes, Fields] = {}

    def request(self, stream: int, block: bytes) -> Fields:
        """The fields of a request. Raises ConnectionFault, StreamFault for malformed ones."""
        known = self._kept.get(block)
        if known is not None:
            return known
        before = self._table()
        pairs = self._decode(block)
        changed = self._changed(before)
        if changed:
            self._kept.clear()
        fields = _request(stream, pairs)
        if not changed and len(self._kept) < MOST_CACHED:
            self._kept[block] = fields
        return fields

    def pairs(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of any block, which changes the table also where nobody wants them. Raises ConnectionFault."""
        before = self._table()
        pairs = self._decode(block)
        if self._changed(before):
            self._kept.clear()
        return pairs

    def _table(self) -> tuple[int, int, object]:
        """What every insertion, eviction and resize changes: an insertion puts a new object first."""
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
    """Refuse what trailers may not have (section 8.1). Raises StreamFault."""
    for name, value in pairs:
        if name.startswith(b":"):
            raise StreamFault(stream, Code.PROTOCOL_ERROR, "trailers have no pseudo-header fields")
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
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "the content length is no number")
    return Fields(
        pseudo[b":method"],
        pseudo[b":path"],
        plain.get(b"content-type", b""),
        plain.get(b"grpc-timeout", b""),
        plain.get(b"grpc-encoding", b""),
        None if length is None else int(length),
    )
