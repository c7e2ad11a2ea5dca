"""Attachment of routes to listeners: who wants what, who allows it, and which hosts are left."""

from __future__ import annotations

from dataclasses import dataclass

from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import Condition, accepted
from xds_server.gateway_api.hostnames import of_route
from xds_server.gateway_api.listeners import ListenerState
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.specs import GROUP, ParentReference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attachment:
    """A route at one of its parents. `listeners` are those that it attaches to, with the hosts that it takes there."""

    parent: ParentReference
    accepted: Condition
    listeners: tuple[tuple[ListenerState, tuple[str, ...]], ...]


def gateway_of(parent: ParentReference, route: Route, cluster: Cluster) -> Key | None:
    """Return the Gateway to which a reference of a route leads, perhaps by a ListenerSet; None if it leads to none."""
    key = (parent.namespace or route.meta.namespace, parent.name)
    if (parent.group, parent.kind) == (GROUP, "Gateway"):
        return key
    if (parent.group, parent.kind) == (GROUP, "ListenerSet"):
        owner = cluster.listener_set(key)
        if owner is not None and owner.spec.parent_ref.kind == "Gateway":
            return (owner.spec.parent_ref.namespace or owner.meta.namespace, owner.spec.parent_ref.name)
    return None


@remembered
def attach(
    route: Route,
    parent: ParentReference,
    listeners: tuple[ListenerState, ...],
    cluster: Cluster,
) -> Attachment:
    """Return the attachment of a route to a Gateway by one of its references."""
    key = (parent.namespace or route.meta.namespace, parent.name)
    wanted = [
        one
        for one in listeners
        if (one.owner.kind, one.owner.meta.key) == (parent.kind, key)
        and parent.section_name in (None, one.spec.name)
        and parent.port in (None, one.spec.port)
    ]
    if not wanted:
        return Attachment(
            parent=parent, accepted=accepted("NoMatchingParent", _nothing(parent)), listeners=()
        )
    allowed = [one for one in wanted if one.valid and _allows(one, route, cluster)]
    if not allowed:
        message = "no listener allows routes of this kind and namespace"
        return Attachment(parent=parent, accepted=accepted("NotAllowedByListeners", message), listeners=())
    hostnames = [one.lower() for one in route.spec.hostnames]
    taken = tuple((one, tuple(hosts)) for one in allowed if (hosts := of_route(one.hostname, hostnames)))
    if not taken:
        message = "no hostname of the route is one of a listener that it attaches to"
        return Attachment(
            parent=parent, accepted=accepted("NoMatchingListenerHostname", message), listeners=()
        )
    return Attachment(parent=parent, accepted=accepted(), listeners=taken)


def _nothing(parent: ParentReference) -> str:
    wanted = [f"the name {parent.section_name}"] if parent.section_name is not None else []
    wanted += [f"port {parent.port}"] if parent.port is not None else []
    if wanted:
        return f"the {parent.kind} has no listener with {' and '.join(wanted)}"
    return f"the {parent.kind} has no listeners, or may not attach to its Gateway"


def _allows(listener: ListenerState, route: Route, cluster: Cluster) -> bool:
    namespaces = listener.spec.allowed_routes.namespaces
    return any(kind.kind == route.kind for kind in listener.kinds) and namespaces.allow(
        route.meta.namespace, listener.owner.meta.namespace, cluster.labels
    )
