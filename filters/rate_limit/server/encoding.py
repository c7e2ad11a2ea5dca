"""Responses for Envoy, written as bytes, because building and serializing a message would take three times as long.

Fields may follow each other in any order, each with its tag (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from envoy.service.ratelimit.v3 import rls_pb2

from protos.wire_format import varint

_RESPONSE = rls_pb2.RateLimitResponse
_HEADER, _BODY = b"\x1a", b"\x2a"
"""The tags of `response_headers_to_add` (3) and `raw_body` (5); both are preceded by their length."""
_KEY, _VALUE = b"\x0a", b"\x12"
"""The tags of a HeaderValue's `key` (1) and `value` (2)."""

_PASSES, _TO_ADD, _PAIR, _OVERWRITE = b"\x1a", b"\x32", b"\x0a", b"\x18\x02"
"""The tags of a CheckResponse's `ok_response` (3), its `response_headers_to_add` (6), and a HeaderValueOption's
`header` (1), and its `append_action` (3), OVERWRITE_IF_EXISTS_OR_ADD."""


_varint = lru_cache(maxsize=4096)(varint)


def _codes(code: rls_pb2.RateLimitResponse.Code, count: int) -> bytes:
    statuses = [_RESPONSE.DescriptorStatus(code=code)] * count
    return _RESPONSE(overall_code=code, statuses=statuses).SerializeToString()


_OK, _OVER_LIMIT = _codes(_RESPONSE.OK, 1), _codes(_RESPONSE.OVER_LIMIT, 1)


@lru_cache(maxsize=64)
def passed(count: int) -> bytes:
    """The response that admits `count` descriptors without headers."""
    return _codes(_RESPONSE.OK, count)


def response(admitted: bool, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """The response of a decision on one descriptor. If it is not admitted, the client gets `body`."""
    out = [_OK if admitted else _OVER_LIMIT]
    for name, value in headers:
        key, text = _named(name), value.encode()
        size = _varint(len(text))
        out += (_HEADER, _varint(len(key) + len(size) + len(text)), key, size, text)
    if body:
        out += (_BODY, _varint(len(body)), body)
    return b"".join(out)


def checked(headers: Iterable[tuple[str, str]]) -> bytes:
    """A CheckResponse with only the headers for the client of a request that passes."""
    out: list[bytes] = []
    for name, value in headers:
        key, text = _named(name), value.encode()
        size = _varint(len(text))
        pair = _varint(len(key) + len(size) + len(text))
        option = _varint(1 + len(pair) + len(key) + len(size) + len(text) + len(_OVERWRITE))
        out += (_TO_ADD, option, _PAIR, pair, key, size, text, _OVERWRITE)
    body = b"".join(out)
    return _PASSES + _varint(len(body)) + body


@lru_cache(maxsize=256)
def _named(name: str) -> bytes:
    """A header's name, and the tag of the value that follows."""
    text = name.encode()
    return _KEY + _varint(len(text)) + text + _VALUE
