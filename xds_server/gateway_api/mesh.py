"""The service mesh: for each namespace with sidecars what they get in the gateway language, and the status of its routes.

All sidecars of a namespace get the same: a listener for each address of a Service that has routes, one that passes on
all other connections of the pod, and one for connections to the pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from xds_server.gateway_api import names, rules
from xds_server.gateway_api.attachment import Attachment
from xds_server.gateway_api.capture import APPLICATION_SOURCE, INBOUND_PORT, INJECT, OUTBOUND_PORT
from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import ParentStatus, RouteStatus
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.service_parents import HTTP_KINDS, ServiceAttachment, attachments, effective
from xds_server.gateway_api.translation import (
    UPSTREAMS_FILE,
    GatewayFiles,
    Translation,
    on_listeners,
    parent_status,
    upstreams_file,
)
from xds_server.gateway_api.upstreams import ServiceUpstream

_FILE = "mesh.yaml"
_OUTBOUND, _INBOUND, _APPLICATION = "outbound", "inbound", "application"
_PLAIN_PORT = 80
_UNLIMITED = 2**32 - 1
_TRANSPARENT = {
    "escaped_slashes": "keep",
    "merge_slashes": False,
    "underscores_in_headers": "allow",
    "http10": True,
    "trust_request_id": True,
    "trusted_proxies": 1,
    "timeouts": {"request": "0s", "stream_idle": "0s"},
}
"""Settings of a listener between an application and its own sidecar, which trusts it."""


def mesh_key(namespace: str) -> Key:
    """Return the key by which the sidecars of a namespace are served. No Gateway has it, because each has a name."""
    return (namespace, "")


def with_mesh(translation: Translation, cluster: Cluster, *, live: bool = False) -> Translation:
    """Return a translation with the meshes of all namespaces that have sidecars, and with the status of their routes."""
    found = attachments(cluster)
    translated = {
        id(one.route): rules.translate(one.route, _parents(one.route, found), cluster) for one in found
    }
    namespaces = sorted(
        one.meta.name for one in cluster.all("Namespace") if one.meta.labels.get(INJECT) == "enabled"
    )
    meshes = {mesh_key(one): _files(one, found, translated, cluster, live=live) for one in namespaces}
    statuses = _statuses(translation.route_statuses, found, translated)
    return replace(translation, meshes=meshes, route_statuses=tuple(statuses))


def _parents(route: Route, found: Iterable[ServiceAttachment]) -> frozenset[Key]:
    """Return the Services of a route, to which its clients could connect without it."""
    return frozenset(one.service for one in found if one.route is route)


def _statuses(
    before: Iterable[RouteStatus],
    found: Iterable[ServiceAttachment],
    translated: Mapping[int, rules.Translated],
) -> Iterator[RouteStatus]:
    """Yield the statuses of routes, with those at Services added."""
    parents: dict[tuple[str, Key], tuple[Route, list[ParentStatus]]] = {}
    for one in found:
        attachment = Attachment(parent=one.parent, accepted=one.accepted, listeners=())
        entry = parents.setdefault((one.route.kind, one.route.meta.key), (one.route, []))
        entry[1].append(parent_status(attachment, translated[id(one.route)]))
    for status in before:
        _, more = parents.pop((status.kind, status.key), (None, []))
        yield replace(status, parents=(*status.parents, *more)) if more else status
    for (kind, key), (route, some) in parents.items():
        yield RouteStatus(kind=kind, key=key, generation=route.meta.generation, parents=tuple(some))


def _files(
    namespace: str,
    found: Iterable[ServiceAttachment],
    translated: Mapping[int, rules.Translated],
    cluster: Cluster,
    *,
    live: bool,
) -> GatewayFiles:
    listeners: dict[str, Mapping[str, Any]] = {}
    ports: dict[str, int | None] = {}
    by_route: dict[int, dict[str, tuple[str, ...]]] = {}
    for (service, port), some in sorted(effective(found, namespace).items()):
        http = some[0].route.kind in HTTP_KINDS
        for name, address in _addresses(service, port, cluster):
            listeners[name] = _listener(address, port, http=http)
            ports[name] = None if port == _PLAIN_PORT else port
            for one in some:
                by_route.setdefault(id(one.route), {})[name] = _hosts(one.route)
    files: dict[str, Mapping[str, Any]] = {_FILE: _mesh_file(listeners)}
    origins: dict[str, Object[Any]] = {}
    used: dict[str, ServiceUpstream] = {}
    taken: set[Any] = set()
    closes = False
    for route in {id(one.route): one.route for one in found if id(one.route) in by_route}.values():
        target = translated[id(route)]
        routes = {
            name: value
            for route_name, (condition, values) in target.routes.items()
            for name, value in on_listeners(route_name, values, condition, by_route[id(route)], ports, taken)
        }
        if routes:
            file = f"{route.kind}/{'/'.join(route.meta.key)}.yaml"
            files[file], origins[file] = {target.section: routes}, route
            used |= {upstream.name: upstream for upstream in target.upstreams if upstream.usable}
            closes = closes or target.closes
    files[UPSTREAMS_FILE] = upstreams_file(used, cluster, closes=closes, live=live)
    return GatewayFiles(files=files, contents={}, origins=origins, upstreams=used)


def _hosts(route: Route) -> tuple[str, ...]:
    """Return the hosts of a route on a listener: the address is the Service's, so hostnames count for TLS only (GEP-1426)."""
    return tuple(route.spec.hostnames) or ("",) if route.kind == "TLSRoute" else ("",)


def _addresses(service: Key, port: int, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a Service in the cluster, each with the name of the listener for a port of it."""
    found = cluster.service(service)
    assert found is not None, "a route is attached to it"
    for number, address in enumerate(found.spec.cluster_addresses):
        yield names.of(*service, str(port), *(() if not number else (str(number),))), address


def _listener(address: str, port: int, *, http: bool) -> Mapping[str, Any]:
    values = {"address": address, "port": port, "bind": False}
    return {**values, **_TRANSPARENT} if http else {**values, "protocol": "tcp"}


def _mesh_file(listeners: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the listeners of a sidecar, and where the connections go that concern no route."""
    captured = {"protocol": "tcp", "original_destination": True}
    return {
        "listeners": {
            _OUTBOUND: {"port": OUTBOUND_PORT, **captured},
            _INBOUND: {"port": INBOUND_PORT, **captured},
            **listeners,
        },
        "stream_routes": {
            _OUTBOUND: {"listeners": [_OUTBOUND], "upstream": _OUTBOUND, "idle_timeout": "0s"},
            _INBOUND: {"listeners": [_INBOUND], "upstream": _APPLICATION, "idle_timeout": "0s"},
        },
        "upstreams": {
            _OUTBOUND: _original(),
            _APPLICATION: {**_original(), "source_address": APPLICATION_SOURCE},
        },
    }


def _original() -> Mapping[str, Any]:
    return {
        "endpoints": [],
        "original_destination": True,
        "protocol": "tcp",
        "circuit_breaker": {"max_connections": _UNLIMITED, "max_pending": _UNLIMITED},
    }
