"""Attachment of routes to listeners: who wants what, who allows it, and which hosts are left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.hostnames import intersection
from xds_server.gateway_api.listeners import ListenerState
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.specs import GROUP, GatewaySpec, ParentReference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attachment:
    """A route at one of its parents. `listeners` are those that it attaches to, with the hosts that it takes there."""

    parent: ParentReference
    accepted: Condition
    listeners: tuple[tuple[ListenerState, tuple[str, ...]], ...]


def is_parent(parent: ParentReference, route: Route, gateway: Object[GatewaySpec]) -> bool:
    """True if a reference of a route names a Gateway."""
    namespace = parent.namespace or route.meta.namespace
    return (parent.group, parent.kind) == (GROUP, "Gateway") and gateway.meta.key == (namespace, parent.name)


@remembered
def attach(
    route: Route,
    parent: ParentReference,
    gateway: Object[GatewaySpec],
    listeners: Iterable[ListenerState],
    cluster: Cluster,
) -> Attachment:
    """Return the attachment of a route to a Gateway by one of its references."""
    wanted = [
        one
        for one in listeners
        if parent.section_name in (None, one.spec.name) and parent.port in (None, one.spec.port)
    ]
    if not wanted:
        return Attachment(
            parent=parent, accepted=accepted("NoMatchingParent", _nothing(parent)), listeners=()
        )
    allowed = [one for one in wanted if one.valid and _allows(one, route, gateway, cluster)]
    if not allowed:
        message = "no listener allows routes of this kind and namespace"
        return Attachment(parent=parent, accepted=accepted("NotAllowedByListeners", message), listeners=())
    hostnames = [one.lower() for one in route.spec.hostnames]
    taken = tuple((one, tuple(hosts)) for one in allowed if (hosts := intersection(one.hostname, hostnames)))
    if not taken:
        message = "no hostname of the route is one of a listener that it attaches to"
        return Attachment(
            parent=parent, accepted=accepted("NoMatchingListenerHostname", message), listeners=()
        )
    return Attachment(parent=parent, accepted=accepted(), listeners=taken)


def _nothing(parent: ParentReference) -> str:
    wanted = [f"the name {parent.section_name}"] if parent.section_name is not None else []
    wanted += [f"port {parent.port}"] if parent.port is not None else []
    return f"the Gateway has no listener with {' and '.join(wanted)}" if wanted else "it has no listeners"


def _allows(listener: ListenerState, route: Route, gateway: Object[GatewaySpec], cluster: Cluster) -> bool:
    if not any(kind.kind == route.kind for kind in listener.kinds):
        return False
    namespaces = listener.spec.allowed_routes.namespaces
    match namespaces.from_:
        case "All":
            return True
        case "Same":
            return route.meta.namespace == gateway.meta.namespace
        case "Selector":
            return namespaces.selector.matches(cluster.labels(route.meta.namespace))
    return False
