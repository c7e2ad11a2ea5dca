"""Services as parents of routes (GAMMA, GEP-1294 and GEP-1426): which route takes the requests to which port of a Service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.objects import Key, Object, ServicePort, ServiceSpec
from xds_server.gateway_api.specs import ParentReference

HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
STREAM_KINDS = ("TLSRoute", "TCPRoute")
_NOT_HTTP = frozenset(("https", "tls", "tcp", "udp", "mongo", "mysql", "redis", "postgres", "postgresql"))
"""Protocols of ports that an HTTPRoute or GRPCRoute for all ports leaves out."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A port of a Service for the clients of whom a route decides: those of a namespace.

    A route in the namespace of the Service (a producer route) is for the clients of all namespaces, and one in another
    namespace (a consumer route) for the clients of that namespace.
    """

    service: Key
    port: int
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServiceAttachment:
    """A route at one of its Services. `ports` are those of which it takes the connections."""

    route: Route
    parent: ParentReference
    service: Key
    ports: tuple[int, ...]
    accepted: Condition

    def scopes(self) -> Iterator[Scope]:
        """Yield each port with the namespace of the route."""
        for port in self.ports:
            yield Scope(self.service, port, self.route.meta.namespace)


def attachments(cluster: Cluster) -> list[ServiceAttachment]:
    """Return the attachments of all routes to Services in the order of the precedence of the routes.

    On a port that HTTPRoutes or GRPCRoutes read as HTTP, a TLSRoute or TCPRoute has no effect.
    """
    found = [
        _attachment(route, parent, cluster)
        for route in cluster.routes()
        for parent in route.spec.parent_refs
        if (parent.group, parent.kind) == ("", "Service")
    ]
    http = {scope for one in found if one.route.kind in HTTP_KINDS for scope in one.scopes()}
    return [_apart(one, http) if one.route.kind in STREAM_KINDS else one for one in found]


def _attachment(route: Route, parent: ParentReference, cluster: Cluster) -> ServiceAttachment:
    key = (parent.namespace or route.meta.namespace, parent.name)
    service = cluster.service(key)
    ports: tuple[int, ...] = ()
    if service is None:
        state = accepted("NoMatchingParent", f"there is no Service {'/'.join(key)}")
    elif fault := _fault(route, service):
        state = accepted("UnsupportedValue", fault)
    else:
        ports = tuple(one.port for one in _ports(route, parent, service))
        state = accepted() if ports else accepted("NoMatchingParent", _nothing(parent, service))
    return ServiceAttachment(route=route, parent=parent, service=key, ports=ports, accepted=state)


def _fault(route: Route, service: Object[ServiceSpec]) -> str:
    if route.kind == "UDPRoute":
        return "a mesh does not capture UDP"
    if service.spec.external:
        return f"the Service {service.meta} is an ExternalName, which has no address in the cluster"
    if service.spec.headless:
        return f"the Service {service.meta} is headless: its clients connect to its pods, and no address is its own"
    return ""


def _ports(route: Route, parent: ParentReference, service: Object[ServiceSpec]) -> list[ServicePort]:
    """Return the ports of a Service that a reference names: by number, by name, or all that may have the route's kind."""
    named = parent.port is not None or parent.section_name is not None
    return [
        one
        for one in service.spec.ports
        if one.protocol == "TCP"
        and parent.port in (None, one.port)
        and parent.section_name in (None, one.name)
        and (named or route.kind not in HTTP_KINDS or _may_be_http(one))
    ]


def _may_be_http(port: ServicePort) -> bool:
    """True unless the protocol of a port, or else its name up to the first hyphen, says that it is not plain HTTP."""
    protocol = port.app_protocol.lower() or port.name.partition("-")[0].lower()
    return protocol not in _NOT_HTTP


def _nothing(parent: ParentReference, service: Object[ServiceSpec]) -> str:
    wanted = [f"the name {parent.section_name}"] if parent.section_name is not None else []
    wanted += [f"the number {parent.port}"] if parent.port is not None else []
    which = f"with {' and '.join(wanted)}" if wanted else "for this kind of route"
    return f"the Service {service.meta} has no TCP port {which}"


def _apart(one: ServiceAttachment, http: set[Scope]) -> ServiceAttachment:
    """Return an attachment of a stream route without the ports that are read as HTTP."""
    left = tuple(scope.port for scope in one.scopes() if scope not in http)
    if left == one.ports:
        return one
    message = "an HTTPRoute or GRPCRoute has its port"
    state = one.accepted if left else accepted("UnsupportedValue", message)
    return ServiceAttachment(
        route=one.route, parent=one.parent, service=one.service, ports=left, accepted=state
    )


def effective(
    found: Iterable[ServiceAttachment], namespace: str
) -> Mapping[tuple[Key, int], list[ServiceAttachment]]:
    """Return what decides about each port of a Service for the clients of a namespace.

    If a consumer route of the namespace is attached to a port, the producer routes of the port have no effect.
    """
    consumers: dict[tuple[Key, int], list[ServiceAttachment]] = {}
    producers: dict[tuple[Key, int], list[ServiceAttachment]] = {}
    for one in found:
        for scope in one.scopes():
            if scope.namespace == scope.service[0]:
                producers.setdefault((scope.service, scope.port), []).append(one)
            elif scope.namespace == namespace:
                consumers.setdefault((scope.service, scope.port), []).append(one)
    return {**producers, **consumers}
