"""The request of a Check as descriptor entries, by which limits count.

Envoy's rate limit filter would send the same entries for the same request, so both ways use the same counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from ipaddress import ip_network

from google.protobuf import struct_pb2

from filters import framing
from filters.check.api_keys import KeyOwner
from filters.check.lazy_request import Attributes, client_address
from filters.ext_authz.decisions import Decision
from filters.model.identity import NAMESPACE
from filters.rate_limit import one_call
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.server.decoding import text

_NOBODY: Mapping[str, struct_pb2.Value] = {}


def after_policy(
    route: one_call.LimitsQuestion, attributes: Attributes, decision: Decision
) -> dict[str, str]:
    """The entries of a request after a policy changed it. The identity script has written the caller's metadata."""
    http = attributes.request.http
    known = attributes.metadata_context.filter_metadata
    identity = known[NAMESPACE].fields if NAMESPACE in known else _NOBODY
    return _entries(route, attributes, identity, http.headers, partial(_header, http, decision))


def for_key(route: one_call.LimitsQuestion, attributes: Attributes, owner: KeyOwner) -> dict[str, str]:
    """The entries of a request whose key was found. No limit counts by headers on such a route."""
    headers = {one.key: text(one.raw_value) for one in attributes.request.http.header_map.headers}
    identity = {descriptors.CONSUMER: struct_pb2.Value(string_value=owner.consumer)}
    if owner.plan:
        identity[descriptors.PLAN] = struct_pb2.Value(string_value=owner.plan)
    return _entries(route, attributes, identity, headers, lambda _: None)


def _entries(
    route: one_call.LimitsQuestion,
    attributes: Attributes,
    identity: Mapping[str, struct_pb2.Value],
    headers: Mapping[str, str],
    header_of: Callable[[str], str | None],
) -> dict[str, str]:
    """The entries.

    `headers` are those of the request; `header_of` returns a header's value at the decision of limits.
    """
    entries = {
        descriptors.ROUTE: attributes.context_extensions.get("route", ""),
        descriptors.ADDRESS: _network(client_address(attributes, headers)),
        descriptors.REQUEST_ID: headers.get("x-request-id", ""),
    }
    if route.plans:
        entries[descriptors.PLANS] = "true"
    for name in (descriptors.CONSUMER, descriptors.PLAN):
        if name in identity:
            entries[name] = identity[name].string_value
    counted = (
        identity[descriptors.COUNTED].struct_value.fields if descriptors.COUNTED in identity else _NOBODY
    )
    for by in route.inputs:
        kind, _, name = by.partition(":")
        value = header_of(name.lower()) if kind == "header" else None
        if value is not None:
            entries[by] = value
        elif by in counted:
            entries[by] = counted[by].string_value
    return entries


def _header(http: Attributes.HttpRequest, decision: Decision, name: str) -> str | None:
    """The value that the upstream would get: Envoy removes headers after it sets headers."""
    if name in framing.HEADERS:  # policies cannot change these
        return http.host if name == "host" else http.headers.get(name)
    if any(one.lower() == name for one in decision.remove):
        return None
    for own, value in decision.headers.items():
        if own.lower() == name:
            return value
    return http.headers.get(name)


@lru_cache(maxsize=65536)
def _network(address: str) -> str:
    """The masked address as Envoy writes it. IPv6 is masked to /64, because one client has a whole /64."""
    if ":" not in address:
        return f"{address}/32" if address else ""
    return str(ip_network((address.partition("%")[0], 64), strict=False))
