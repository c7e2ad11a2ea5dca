"""What a sidecar does with connections to its pod, in the gateway language.

Connections are forwarded as bytes. A port is read as HTTP only if a rule is about its requests. Clients without a right
are rejected in the TLS handshake, requests without one get 403, and what concerns nobody is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.gateway_api.capture import (
    ANY_ADDRESS,
    APPLICATION_SOURCE,
    APPLICATION_SOURCE_IPV6,
    INBOUND_PORT,
)
from xds_server.gateway_api.mesh_policies import Inbound, InboundRule
from xds_server.gateway_api.mesh_specs import ANY
from xds_server.gateway_api.mesh_tls import SERVER_NAME, MeshTrust

APPLICATION, _APPLICATION_HTTP = "application", "application-http"
"""The upstreams of the application of the pod, which knows the sidecar by its address."""
_INBOUND, _INBOUND_MESH = "inbound", "inbound-mesh"
"""The listeners for connections to a pod, without and with TLS of the mesh."""
_WAITING = {"listener_filters_timeout": "3s", "continue_on_listener_filters_timeout": True}
"""A client that waits for the server's first bytes gets its connection after this time."""
UNBROKEN = {"max_connections": 2**32 - 1, "max_pending": 2**32 - 1, "max_requests": 2**32 - 1}
"""No limit: it would be that of the application's own connections."""
TRANSPARENT = {
    "escaped_slashes": "keep",
    "merge_slashes": False,
    "underscores_in_headers": "allow",
    "http10": True,
    "trust_request_id": True,
    "trusted_proxies": 1,
    "timeouts": {"request": "0s", "stream_idle": "0s"},
}
"""Settings of a listener between an application and its own sidecar, which trusts it."""
_OF_REQUESTS = {
    "trust_identity": True,
    "limits": {"max_headers": 8 << 20, "max_header_count": 10_000, "max_concurrent_streams": 2**31 - 1},
}
"""Settings of a listener for requests to the application: what it takes is for the application to decide."""
_ONE_SPELLING = {"escaped_slashes": "reject", "merge_slashes": True}
"""Settings with which no other spelling of a path passes a rule about it."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """Connections to a port, None for all that no rule names, with TLS of the mesh or in plain text.

    `allow` is None if nothing limits what is allowed.
    """

    port: int | None
    trust: MeshTrust | None
    http: bool
    allow: tuple[InboundRule, ...] | None
    deny: tuple[InboundRule, ...]

    @property
    def name(self) -> str:
        first = _INBOUND if self.trust is None else _INBOUND_MESH
        return first if self.port is None else f"{first}-{self.port}"

    @property
    def open(self) -> bool:
        """False if every connection is closed. Without a rule that allows some of its requests, a port with HTTP has 403."""
        if any(not self._about(rule) for rule in self.deny):
            return False
        return self.allow is None or bool(self.allow) or (self.http and self.trust is not None)

    def _about(self, rule: InboundRule) -> bool:
        """True if a rule that denies leaves some clients or requests out."""
        return rule.client is not None or (self.http and rule.of_requests)

    def names(self, rule: InboundRule) -> list[str]:
        """Return the names of the clients of a rule that allows."""
        if self.trust is None or rule.anonymous:
            return []
        return [self.trust.name(rule.client or (ANY, ANY))]

    def clients(self) -> list[str]:
        """Return the names of the clients that may connect."""
        assert self.trust is not None, "plain text has no names"
        found = {name for rule in self.allow or () for name in self.names(rule)}
        every = self.http or self.allow is None or any(rule.anonymous for rule in self.allow)
        return [self.trust.name((ANY, ANY))] if every or not found else sorted(found)


def inbound_file(trust: MeshTrust | None, accepted: Inbound) -> Mapping[str, Any]:
    """Return the file with the listeners for connections to a pod, and what is done with these."""
    listeners: dict[str, Any] = {}
    streams: dict[str, Any] = {}
    routes: dict[str, Any] = {}
    for chain in _chains(trust, accepted):
        listeners[chain.name] = _listener(chain, waits=trust is not None)
        if chain.open and chain.http:
            routes[chain.name] = _route(chain)
        elif chain.open:
            streams[chain.name] = _stream(chain)
    upstreams = {_APPLICATION_HTTP: {**application(), "protocol": "same"}} if routes else {}
    sections = {"stream_routes": streams, "routes": routes, "upstreams": upstreams}
    return {"listeners": listeners, **{key: values for key, values in sections.items() if values}}


def application() -> Mapping[str, Any]:
    """Return the upstream of the application of the pod."""
    return {
        "endpoints": [],
        "original_destination": True,
        "protocol": "tcp",
        "circuit_breaker": UNBROKEN,
        "source_address": [APPLICATION_SOURCE, APPLICATION_SOURCE_IPV6],
    }


def _chains(trust: MeshTrust | None, accepted: Inbound) -> Iterator[_Chain]:
    for port in (None, *accepted.ports):
        http = accepted.is_http(port)
        allow = (
            None
            if accepted.allow is None
            else tuple(one for one in accepted.allow if one.concerns(port) and (http or not one.of_requests))
        )
        deny = tuple(one for one in accepted.deny if one.concerns(port))
        plain = None if allow is None else tuple(one for one in allow if one.anonymous)
        unknown = tuple(one for one in deny if one.client is None)
        yield _Chain(port, None, http, () if accepted.strict else plain, unknown)
        if trust is not None:
            yield _Chain(port, trust, http, allow, deny)


def _listener(chain: _Chain, *, waits: bool) -> Mapping[str, Any]:
    values: dict[str, Any] = {"address": ANY_ADDRESS, "port": INBOUND_PORT, "original_destination": True}
    if chain.port is not None:
        values["destination_port"] = chain.port
    elif waits:
        values["envoy"] = _WAITING
    if chain.http and chain.open:
        paths = any(rule.paths or rule.when for rule in (*(chain.allow or ()), *chain.deny))
        values |= {**TRANSPARENT, **_OF_REQUESTS, **(_ONE_SPELLING if paths else {})}
    else:
        values["protocol"] = "tcp"
    if chain.trust is not None:
        values |= {"hosts": [SERVER_NAME], "tls": chain.trust.listener(chain.clients())}
        values |= {"any_host": True} if chain.http and chain.open else {}
    return values


def _stream(chain: _Chain) -> Mapping[str, Any]:
    values: dict[str, Any] = {"listeners": [chain.name], "upstream": APPLICATION, "idle_timeout": "0s"}
    denied = _denied(chain)
    return {**values, "authorize": [{"clients": denied, "deny": True}]} if denied else values


def _denied(chain: _Chain) -> list[str]:
    if chain.trust is None:
        return []
    return sorted({chain.trust.name(rule.client) for rule in chain.deny if rule.client is not None})


def _route(chain: _Chain) -> Mapping[str, Any]:
    where = {"listeners": [chain.name], "path": "/*"}
    if chain.allow == ():
        return {**where, "respond": {"status": 403}}
    values: dict[str, Any] = {
        **where,
        "upstream": _APPLICATION_HTTP,
        "timeout": "0s",
        "idle_timeout": "0s",
        "websocket": True,
        # the application may close a connection just when it is used again
        "retry": {"attempts": 1, "on": ["reset-before-request"]},
    }
    rules = [*_allowing(chain), *_denying(chain)]
    return {**values, "policies": {"authorize": rules}} if rules else values


def _allowing(chain: _Chain) -> Sequence[Mapping[str, Any]]:
    found = [_conditions(rule, chain.names(rule)) for rule in chain.allow or ()]
    return found if all(found) else ()


def _denying(chain: _Chain) -> Iterator[Mapping[str, Any]]:
    for rule in chain.deny:
        names = [] if chain.trust is None or rule.client is None else [chain.trust.name(rule.client)]
        yield {**_conditions(rule, names), "deny": True}


def _conditions(rule: InboundRule, names: Sequence[str]) -> Mapping[str, Any]:
    """Return what a rule wants, in the words of `authorize`."""
    values = {"clients": [*names], "methods": [*rule.methods], "paths": [*rule.paths], "when": rule.when}
    return {key: value for key, value in values.items() if value}
