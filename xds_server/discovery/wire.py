"""Responses as bytes, joined from resources that are serialized once; no message is built again."""

from __future__ import annotations

from functools import lru_cache

from protos.wire_format import head
from xds_server.discovery.events import Response

CONTROL_PLANE = "xds-gateway"


def sotw(response: Response) -> bytes:
    """Return an envoy.service.discovery.v3.DiscoveryResponse."""
    url = response.type.url
    parts = [_text(1, response.version)]
    for resource in response.resources:
        parts += _any(2, url, len(resource.body)), resource.body
    parts += _text(4, url), _text(5, response.nonce), _CONTROL_PLANE[6]
    return b"".join(parts)


def delta(response: Response) -> bytes:
    """Return an envoy.service.discovery.v3.DeltaDiscoveryResponse."""
    url = response.type.url
    parts = [_text(1, response.version)]
    for resource in response.resources:
        parts += _entry(url, resource.name, resource.version, len(resource.body)), resource.body
    parts += _text(4, url), _text(5, response.nonce)
    parts += [_text(6, name) for name in response.removed]
    parts.append(_CONTROL_PLANE[7])
    return b"".join(parts)


@lru_cache(maxsize=1024)  # a change goes to every client, each time with the same bytes around it
def _entry(url: str, name: str, version: str, size: int) -> bytes:
    """Return a Resource of a delta response, up to its message of `size` bytes."""
    before = _text(3, name) + _text(1, version) + _any(2, url, size)
    return head(2, len(before) + size) + before


@lru_cache(maxsize=1024)
def _any(number: int, url: str, size: int) -> bytes:
    """Return a google.protobuf.Any up to its message of `size` bytes."""
    before = _text(1, url) + head(2, size)
    return head(number, len(before) + size) + before


@lru_cache(maxsize=1024)
def _text(number: int, value: str) -> bytes:
    encoded = value.encode()
    return head(number, len(encoded)) + encoded


_CONTROL_PLANE = {
    number: head(number, len(_text(1, CONTROL_PLANE))) + _text(1, CONTROL_PLANE) for number in (6, 7)
}
