"""Responses as bytes, joined from resources that were serialized once, without building messages again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xds_server.discovery.events import Response

CONTROL_PLANE = b"xds-gateway"


def sotw(response: Response) -> bytes:
    """An envoy.service.discovery.v3.DiscoveryResponse."""
    parts = [_text(1, response.version)]
    for one in response.resources:
        parts += _nested(2, _any(response.type.url, one.body))
    parts += [_text(4, response.type.url), _text(5, response.nonce)]
    parts += _nested(6, [_field(1, CONTROL_PLANE)])
    return b"".join(parts)


def delta(response: Response) -> bytes:
    """An envoy.service.discovery.v3.DeltaDiscoveryResponse."""
    parts = [_text(1, response.version)]
    for one in response.resources:
        entry = [_text(1, one.version), *_nested(2, _any(response.type.url, one.body)), _text(3, one.name)]
        parts += _nested(2, entry)
    parts += [_text(4, response.type.url), _text(5, response.nonce)]
    parts += [_text(6, name) for name in response.removed]
    parts += _nested(7, [_field(1, CONTROL_PLANE)])
    return b"".join(parts)


def _any(url: str, body: bytes) -> list[bytes]:
    return [_text(1, url), _head(2, len(body)), body]


def _nested(number: int, parts: Iterable[bytes]) -> Iterator[bytes]:
    inner = list(parts)
    yield _head(number, sum(map(len, inner)))
    yield from inner


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, value: bytes) -> bytes:
    return _head(number, len(value)) + value


def _head(number: int, length: int) -> bytes:
    out = bytearray([number << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)
