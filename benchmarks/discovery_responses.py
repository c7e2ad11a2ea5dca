"""Parses what an xDS server sends. Nearly all Envoys get the same, so that it is parsed once for all of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401 - found by references()
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401 - found by references()
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.discovery import snapshot, types
from xds_server.discovery.references import references

_MARKER = re.compile(rb"scale-\d+-end")
_PARSED = 128
"""Responses that are remembered."""


@dataclass(frozen=True, slots=True)
class Held:
    """One version of a resource. All simulated Envoys share it."""

    name: str
    version: str
    needs: frozenset[tuple[str, str]]
    """Type URL and name of the resources that it makes an Envoy request."""
    markers: frozenset[str]
    digest: int
    """A number made of type, name and version, the same in every process."""
    body: int


@dataclass(frozen=True, slots=True)
class Response:
    """A parsed response."""

    url: str
    nonce: str
    version: str
    resources: tuple[Held, ...]
    removed: tuple[str, ...]


class Parser:
    """Parses responses. A response or a resource that it has met before costs a lookup."""

    def __init__(self, delta: bool, errors: Counter[str]) -> None:
        self._delta, self._errors = delta, errors
        self._responses: dict[int, Response] = {}
        self._resources: dict[tuple[str, str, str], Held] = {}

    def response(self, message: bytes) -> Response:
        """Return a response of the server."""
        key = hash(message)
        known = self._responses.get(key)
        if known is None:
            if len(self._responses) >= _PARSED:
                del self._responses[next(iter(self._responses))]
            known = self._responses[key] = (
                self._delta_response(message) if self._delta else self._sotw(message)
            )
        return known

    def _delta_response(self, message: bytes) -> Response:
        parsed = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
        held = [
            self._held(parsed.type_url, one.name, one.version, one.resource.value) for one in parsed.resources
        ]
        return Response(parsed.type_url, parsed.nonce, "", tuple(held), tuple(parsed.removed_resources))

    def _sotw(self, message: bytes) -> Response:
        parsed = discovery_pb2.DiscoveryResponse.FromString(message)
        type_ = types.of_url(parsed.type_url)
        held = [
            self._held(type_.url, _name(type_, one.value), _content(one.value), one.value)
            for one in parsed.resources
        ]
        return Response(parsed.type_url, parsed.nonce, parsed.version_info, tuple(held), ())

    def _held(self, url: str, name: str, version: str, body: bytes) -> Held:
        known = self._resources.get((url, name, version))
        if known is None:
            type_ = types.of_url(url)
            found = references(type_, snapshot.Resource(name=name, version=version, body=body))
            known = self._resources[url, name, version] = Held(
                name,
                version,
                frozenset((type_.url, needed) for type_, needed in found),
                frozenset(one.decode() for one in _MARKER.findall(body)),
                int.from_bytes(hashlib.blake2b(f"{url} {name} {version}".encode(), digest_size=8).digest()),
                hash(body),
            )
        if known.body != hash(body):
            self._errors[f"two contents of {url} {name} have the version {version}"] += 1
        return known


def _content(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def _name(type_: types.ResourceType, body: bytes) -> str:
    """Return the name of a resource: the first field of all types that Envoys request (`name`, `cluster_name`)."""
    tag, length = body[0], body[1]
    if tag != 0x0A or length > 0x7F:  # field 1, a text of less than 128 bytes
        raise ValueError(f"a {type_.name} does not begin with its name")
    return body[2 : 2 + length].decode()
