"""Has the statuses of objects written, each once for its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from xds_server.controller.mesh_groups import is_mesh
from xds_server.controller.served import ServedGateway
from xds_server.gateway_api import statuses
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, ObjectStatus, RouteStatus, accepted
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.translation import Translation
from xds_server.kubernetes.resources import Key as ObjectKey
from xds_server.kubernetes.resources import Resource
from xds_server.kubernetes.status_writer import StatusWriter

_FIRST = ("GatewayClass", "Gateway", "ListenerSet")
"""Kinds whose statuses go before those of 5,000 routes."""


class StatusReporter:
    """Compares statuses with those that were wanted before. `resources` has the kinds, and `served` the Gateways.

    `programmed` returns the condition of a Gateway.
    """

    def __init__(
        self,
        writer: StatusWriter,
        resources: Mapping[str, Resource],
        served: Mapping[Key, ServedGateway],
        programmed: Callable[[Key], Condition],
    ) -> None:
        self._writer, self._resources, self._served, self._programmed = writer, resources, served, programmed
        self._wanted: dict[tuple[str, Key], tuple[str, Mapping[str, Any]]] = {}
        """The statuses that were wanted, with the UID of their object."""
        self._told: Translation | None = None
        """The translation whose routes and policies have their statuses."""

    def forget(self) -> None:
        """Forget what was written, because another replica may have written."""
        self._wanted.clear()
        self._told = None

    def report(
        self, translation: Translation, addresses: Mapping[Key, tuple[str, ...]], cluster: Cluster
    ) -> None:
        """Have the statuses of a translation written. `addresses` has those of the Gateways that are still there."""
        for status in translation.gateway_statuses:
            if status.key in addresses:
                found = statuses.gateway_status(status, addresses[status.key], self._programmed(status.key))
                self.want("Gateway", status.key, found, cluster)
        for owner in translation.set_statuses:
            found = statuses.set_status(owner, self._programmed(owner.gateway))
            self.want("ListenerSet", owner.key, found, cluster)
        if self._told is not translation:
            self._told = translation
            self._tell(translation, cluster)

    def _tell(self, translation: Translation, cluster: Cluster) -> None:
        """Have the statuses written that only a new translation changes."""
        for route in translation.route_statuses:
            self.want(route.kind, route.key, statuses.route_status(self._with_rejections(route)), cluster)
        for policy in translation.policy_statuses:
            self.want("BackendTLSPolicy", policy.key, statuses.policy_status(policy), cluster)
        for own in translation.object_statuses:
            self.want(own.kind, own.key, statuses.object_status(self._object_with_rejections(own)), cluster)

    def _with_rejections(self, route: RouteStatus) -> RouteStatus:
        """Return the status of a route with what the gateway language says of it."""
        every = (served.rejected.get((route.kind, route.key)) for served in self._served.values())
        said = next((message for message in every if message is not None), None)
        if said is None:
            return route
        wrong = accepted("UnsupportedValue", said)
        parents = tuple(replace(one, conditions=(wrong, *one.conditions[1:])) for one in route.parents)
        return replace(route, parents=parents)

    def _object_with_rejections(self, status: ObjectStatus) -> ObjectStatus:
        """Return the status of an object of our own kinds with what the gateway language says of it at each Gateway."""
        ancestors = []
        for one in status.ancestors:
            served = self._served.get((one.ancestor.namespace or "", one.ancestor.name))
            said = served.rejected.get((status.kind, status.key)) if served is not None else None
            if said is None and status.kind == "MeshPolicy" and one.conditions[0].status:
                said = self._fault_of_mesh(one.ancestor.name)
            wrong = one if said is None else replace(one, conditions=(accepted("Invalid", said),))
            ancestors.append(wrong)
        return replace(status, ancestors=tuple(ancestors))

    def _fault_of_mesh(self, namespace: str) -> str | None:
        """Return why the sidecars of a namespace do not get its newest state, None if they do."""
        faults = (one.fault for key, one in self._served.items() if is_mesh(key) and key[0] == namespace)
        return next((f"sidecars keep what they have: {fault}" for fault in faults if fault), None)

    def want(self, kind: str, key: Key, status: Mapping[str, Any], cluster: Cluster) -> None:
        """Have the status of an object written, unless it was wanted before."""
        found: Object[Any] | None = cluster.objects[kind].get(key)
        wanted = (found.meta.uid if found is not None else "", status)
        if self._wanted.get((kind, key)) != wanted:
            self._wanted[kind, key] = wanted
            self._writer.want(self._resources[kind], ObjectKey(*key), dict(status), first=kind in _FIRST)
