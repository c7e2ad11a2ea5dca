"""The service mesh: for each namespace with sidecars what they get in the gateway language, and the status of its routes.

All sidecars of a namespace get the same: a listener for each address of a Service that has routes, one that passes on
all other connections of the pod, and one for connections to the pod.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from xds_server.gateway_api import mesh_policies, names, rules
from xds_server.gateway_api.attachment import Attachment
from xds_server.gateway_api.capture import ANY_ADDRESS, INJECT, OUTBOUND_PORT
from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import ParentStatus, RouteStatus
from xds_server.gateway_api.gateway_files import UPSTREAMS_FILE, GatewayFiles
from xds_server.gateway_api.mesh_inbound import APPLICATION, TRANSPARENT, UNBROKEN, application, inbound_file
from xds_server.gateway_api.mesh_policies import Inbound, inbound, named_accounts
from xds_server.gateway_api.mesh_tls import MeshTrust
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.placement import file_of
from xds_server.gateway_api.route_files import on_listeners
from xds_server.gateway_api.service_parents import HTTP_KINDS, ServiceAttachment, attachments, effective
from xds_server.gateway_api.translation import Translation, parent_status, upstreams_file
from xds_server.gateway_api.upstreams import ServiceUpstream

_FILE, _INBOUND_FILE = "mesh.yaml", "inbound.yaml"
_OUTBOUND = "outbound"
_PLAIN_PORT = 80
_FORWARDS = {"upstream", "split"}
"""Actions with a timeout. Applications had none before they got a sidecar."""


def mesh_key(namespace: str, account: str | None = None) -> Key:
    """Return the key by which the sidecars of a namespace are served, or those of an account that a policy names.

    No Gateway has it, because a name of Kubernetes is not empty and has no @.
    """
    return (namespace, "" if account is None else f"@{account}")


def with_mesh(
    translation: Translation, cluster: Cluster, *, live: bool = False, trust: MeshTrust | None = None
) -> Translation:
    """Return a translation with the meshes of all namespaces that have sidecars, and with the status of their routes.

    With `trust`, sidecars speak mutual TLS with each other.
    """
    found = attachments(cluster)
    parents: dict[int, set[Key]] = {}
    for one in found:
        parents.setdefault(id(one.route), set()).add(one.service)
    translated = {
        id(one.route): rules.translate(one.route, frozenset(parents[id(one.route)]), cluster) for one in found
    }
    namespaces = sorted(
        one.meta.name for one in cluster.all("Namespace") if one.meta.labels.get(INJECT) == "enabled"
    )
    inside = frozenset(namespaces) if trust is not None else frozenset()
    meshes: dict[Key, GatewayFiles] = {}
    for namespace in namespaces:
        files = _files(namespace, found, translated, inside, trust, cluster, live=live)
        for account in (None, *named_accounts(namespace, cluster)):
            meshes[mesh_key(namespace, account)] = _accepting(
                files, trust, inbound(namespace, account, cluster)
            )
    gateways, ingresses = translation.gateways, translation.ingresses
    if trust is not None and inside:
        gateways = {key: _as_client(files, inside, trust) for key, files in gateways.items()}
        ingresses = {key: _as_client(files, inside, trust) for key, files in ingresses.items()}
    return replace(
        translation,
        gateways=gateways,
        ingresses=ingresses,
        meshes=meshes,
        route_statuses=tuple(_statuses(translation.route_statuses, found, translated)),
        object_statuses=(*translation.object_statuses, *mesh_policies.statuses(cluster)),
    )


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
    inside: frozenset[str],
    trust: MeshTrust | None,
    cluster: Cluster,
    *,
    live: bool,
) -> GatewayFiles:
    """Return what the sidecars of a namespace do with connections of their pods."""
    listeners: dict[str, Mapping[str, Any]] = {}
    ports: dict[str, int | None] = {}
    addresses: dict[str, tuple[str, ...]] = {}
    by_route: dict[int, dict[str, tuple[str, ...]]] = {}
    decided = effective(found, namespace)
    for (service, port), some in sorted(decided.items()):
        http = some[0].route.kind in HTTP_KINDS
        for name, address in _addresses(service, port, cluster):
            addresses.setdefault(_written(address, port), _names(service, port, namespace))
            listeners[name] = _listener(address, port, http=http)
            ports[name] = None if port == _PLAIN_PORT else port
            for one in some:
                by_route.setdefault(id(one.route), {})[name] = _hosts(one.route)
    streams: dict[str, Any] = {}
    used: dict[str, ServiceUpstream] = {}
    for (service, port), upstream in _undecided(decided, inside, cluster):
        for name, address in _addresses(service, port, cluster):
            addresses.setdefault(_written(address, port), _names(service, port, namespace))
            listeners[name] = _listener(address, port, http=False)
            streams[name] = {"listeners": [name], "upstream": upstream.name, "idle_timeout": "0s"}
            used[upstream.name] = upstream
    files: dict[str, Mapping[str, Any]] = {_FILE: _mesh_file(listeners, streams, trust)}
    origins: dict[str, Object[Any]] = {}
    taken: set[Any] = set()
    closes = False
    for route in {id(one.route): one.route for one in found if id(one.route) in by_route}.values():
        target = translated[id(route)]
        routes = {
            name: _unlimited(route, value)
            for route_name, (condition, values) in target.routes.items()
            for name, value in on_listeners(route_name, values, condition, by_route[id(route)], ports, taken)
        }
        if routes:
            file = file_of(route)
            files[file], origins[file] = {target.section: routes}, route
            used |= {upstream.name: upstream for upstream in target.upstreams if upstream.usable}
            closes = closes or target.closes
    declared = upstreams_file(used, cluster, closes=closes, live=live)["upstreams"]
    values = {name: _meshed(one, used.get(name), inside, trust) for name, one in declared.items()}
    headless = tuple(_headless(inside, cluster))
    if trust is not None:
        values |= _pods(headless, trust, cluster)
    files[UPSTREAMS_FILE] = {"upstreams": values}
    contents = {} if trust is None else trust.contents()
    return GatewayFiles(
        files=files,
        contents=contents,
        origins=origins,
        upstreams=used,
        addresses=addresses,
        headless=headless,
    )


def _undecided(
    decided: Container[tuple[Key, int]], inside: frozenset[str], cluster: Cluster
) -> Iterator[tuple[tuple[Key, int], ServiceUpstream]]:
    """Yield the ports of Services in namespaces of the mesh that have no routes.

    Their connections go to the endpoints that the sidecar chooses, because only so it knows if they have a sidecar.
    """
    if not inside:
        return
    for service in cluster.all("Service"):
        if service.meta.namespace not in inside or service.spec.external:
            continue
        for port in service.spec.ports:
            key = (service.meta.key, port.port)
            if port.protocol == "TCP" and key not in decided:
                yield (
                    key,
                    ServiceUpstream(
                        service=service.meta.key, port=port.port, protocol="tcp", websocket=False
                    ),
                )


def pods_upstream(namespace: str, account: str) -> str:
    """Return the name of the upstream of pods to whose addresses clients connect."""
    return names.of(namespace, account, "pods")


def _headless(inside: frozenset[str], cluster: Cluster) -> Iterator[Key]:
    """Yield the Services in namespaces of the mesh without an address of their own."""
    for one in cluster.all("Service"):
        if one.meta.namespace in inside and one.spec.headless and not one.spec.external:
            yield one.meta.key


def _unlimited(route: Route, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a route of the language without the timeout of 15 seconds that it would have by default."""
    forwards = route.kind == "HTTPRoute" and _FORWARDS & values.keys()
    return {"timeout": "0s", **values} if forwards else values


def _pods(services: Iterable[Key], trust: MeshTrust, cluster: Cluster) -> Mapping[str, Mapping[str, Any]]:
    """Return the upstreams of the pods of Services, one for each account. A sidecar connects to the address that was wanted."""
    accounts = {(key[0], one) for key in services for one in cluster.accounts(cluster.slices(key))}
    return {pods_upstream(*one): {**_original(), "tls": trust.pods(*one)} for one in sorted(accounts)}


def _as_client(files: GatewayFiles, inside: frozenset[str], trust: MeshTrust) -> GatewayFiles:
    """Return the files of a Gateway with TLS to those of its endpoints that have a sidecar."""
    declared = files.files[UPSTREAMS_FILE]["upstreams"]
    encrypted = {
        name: {**values, "tls": trust.upstream(upstream.service[0])}
        for name, values in declared.items()
        if (upstream := files.upstreams.get(name)) is not None
        and upstream.service[0] in inside
        and "tls" not in values
    }
    if not encrypted:
        return files
    changed: dict[str, Mapping[str, Any]] = {
        UPSTREAMS_FILE: {"upstreams": {**declared, **encrypted}},
        _FILE: {"secrets": trust.secrets()},
    }
    return replace(files, files={**files.files, **changed}, contents={**files.contents, **trust.contents()})


def _meshed(
    values: Mapping[str, Any],
    upstream: ServiceUpstream | None,
    inside: frozenset[str],
    trust: MeshTrust | None,
) -> Mapping[str, Any]:
    """Return an upstream as a sidecar uses it: as many connections as its application makes, and TLS to other sidecars.

    TLS of a BackendTLSPolicy ends in the application.
    """
    result = {**values, "circuit_breaker": UNBROKEN}
    if trust is not None and upstream is not None and upstream.service[0] in inside and "tls" not in values:
        result["tls"] = trust.upstream(upstream.service[0])
    return result


def _hosts(route: Route) -> tuple[str, ...]:
    """Return the hosts of a route on a listener: the address is the Service's, so hostnames count for TLS only (GEP-1426)."""
    return tuple(route.spec.hostnames) or ("",) if route.kind == "TLSRoute" else ("",)


def _addresses(service: Key, port: int, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a Service in the cluster, each with the name of the listener for a port of it."""
    found = cluster.service(service)
    assert found is not None, "a route is attached to it"
    for number, address in enumerate(found.spec.cluster_addresses):
        yield names.of(*service, str(port), *(() if not number else (str(number),))), address


def _written(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _names(service: Key, port: int, namespace: str) -> tuple[str, ...]:
    """Return the names of a port of a Service for clients of a namespace, as in the DNS of the cluster."""
    own = f"{service[1]}.{service[0]}"
    short = (service[1],) if service[0] == namespace else ()
    return tuple(f"{one}:{port}" for one in (*short, own, f"{own}.svc", f"{own}.svc.cluster.local"))


def _listener(address: str, port: int, *, http: bool) -> Mapping[str, Any]:
    values = {"address": address, "port": port, "bind": False}
    return {**values, **TRANSPARENT} if http else {**values, "protocol": "tcp"}


def _mesh_file(
    listeners: Mapping[str, Mapping[str, Any]], streams: Mapping[str, Any], trust: MeshTrust | None
) -> Mapping[str, Any]:
    """Return the listeners of a sidecar, and where the connections go that concern no route."""
    outbound = {
        "address": ANY_ADDRESS,
        "port": OUTBOUND_PORT,
        "protocol": "tcp",
        "original_destination": True,
    }
    through = {"listeners": [_OUTBOUND], "upstream": _OUTBOUND, "idle_timeout": "0s"}
    return {
        "listeners": {_OUTBOUND: outbound, **listeners},
        "stream_routes": {_OUTBOUND: through, **streams},
        "upstreams": {
            _OUTBOUND: _original(),
            APPLICATION: application(),
        },
        **({} if trust is None else {"secrets": trust.secrets()}),
    }


def _accepting(files: GatewayFiles, trust: MeshTrust | None, accepted: Inbound) -> GatewayFiles:
    """Return the files of a sidecar with what it does with connections to its pod."""
    return replace(files, files={**files.files, _INBOUND_FILE: inbound_file(trust, accepted)})


def _original() -> Mapping[str, Any]:
    return {
        "endpoints": [],
        "original_destination": True,
        "protocol": "tcp",
        "circuit_breaker": UNBROKEN,
    }
