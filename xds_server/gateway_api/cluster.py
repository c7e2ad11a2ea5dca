"""The objects of a cluster (or of a folder of manifests) at one moment, found by kind and key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xds_server.gateway_api.memory import Memory
from xds_server.gateway_api.objects import (
    GATEWAY_LABEL,
    Key,
    NamespaceSpec,
    Object,
    PodSpec,
    SecretSpec,
    ServiceSpec,
    SliceSpec,
)
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.route_specs import GrpcRouteSpec, HttpRouteSpec, StreamRouteSpec, TlsRouteSpec
from xds_server.gateway_api.specs import (
    GROUP,
    BackendTlsPolicySpec,
    GatewayClassSpec,
    GatewaySpec,
    ListenerSetSpec,
    ReferenceGrantSpec,
)

Route = Object[HttpRouteSpec] | Object[GrpcRouteSpec] | Object[TlsRouteSpec] | Object[StreamRouteSpec]
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")


@dataclass(frozen=True)
class Cluster:
    """All objects, by kind and key. A kind without objects may be left out."""

    objects: Mapping[str, Mapping[Any, Object[Any]]]
    """The keys are Key, or a type that equals it."""
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    """What is remembered of the translation of an earlier moment."""
    wanted: set[tuple[str, Key]] = field(default_factory=set, compare=False)
    """Kind and key of each Secret and ConfigMap that was looked up, also of those that do not exist."""

    @classmethod
    def of(cls, objects: Iterable[Object[Any]]) -> Cluster:
        """Return the cluster of these objects. The last one of several with the same key counts."""
        found: dict[str, dict[Key, Object[Any]]] = {}
        for one in objects:
            found.setdefault(one.kind, {})[one.meta.key] = one
        return cls(found)

    def all(self, kind: str) -> Iterable[Object[Any]]:
        """Return all objects of a kind."""
        return self.objects.get(kind, {}).values()

    def classes(self) -> Iterable[Object[GatewayClassSpec]]:
        """Return all GatewayClasses."""
        return self.all("GatewayClass")

    def gateways(self) -> Iterable[Object[GatewaySpec]]:
        """Return all Gateways."""
        return self.all("Gateway")

    def gateway(self, key: Key) -> Object[GatewaySpec] | None:
        """Return a Gateway, or None."""
        return self.objects.get("Gateway", {}).get(key)

    def listener_set(self, key: Key) -> Object[ListenerSetSpec] | None:
        """Return a ListenerSet, or None."""
        return self.objects.get("ListenerSet", {}).get(key)

    def listener_sets(self, gateway: Key) -> tuple[Object[ListenerSetSpec], ...]:
        """Return the ListenerSets that name a Gateway in the order of their precedence, the oldest first."""
        return self._listener_sets.get(gateway, ())

    @cached_property
    def _listener_sets(self) -> Mapping[Key, tuple[Object[ListenerSetSpec], ...]]:
        found: dict[Key, list[Object[ListenerSetSpec]]] = {}
        for one in sorted(self.all("ListenerSet"), key=lambda one: (one.meta.created, one.meta.key)):
            parent = one.spec.parent_ref
            if (parent.group, parent.kind) == (GROUP, "Gateway"):
                key = (parent.namespace or one.meta.namespace, parent.name)
                found.setdefault(key, []).append(one)
        return {key: tuple(some) for key, some in found.items()}

    def routes(self) -> list[Route]:
        """Return all routes in the order of their precedence: the oldest first, then by namespace and name."""
        every = [one for kind in ROUTE_KINDS for one in self.all(kind)]
        return sorted(every, key=lambda one: (one.meta.created, one.meta.key, one.kind))

    def service(self, key: Key) -> Object[ServiceSpec] | None:
        """Return a Service, or None."""
        return self.objects.get("Service", {}).get(key)

    def concerns(self, one: Object[Any]) -> bool:
        """True if a change of an object can matter for what was made of this cluster. Clusters have many Secrets and ConfigMaps."""
        if one.kind not in ("Secret", "ConfigMap"):
            return True
        return (one.kind, one.meta.key) in self.wanted or GATEWAY_LABEL in one.meta.labels

    def without_sidecar(self, slices: Iterable[Object[SliceSpec]]) -> frozenset[str]:
        """Return the addresses of endpoints that are not known to have a sidecar."""
        return frozenset(
            endpoint.address
            for one in slices
            for endpoint in one.spec.endpoints
            if self._with_sidecar(one.meta.namespace, *endpoint.pod) is None
        )

    def accounts(self, slices: Iterable[Object[SliceSpec]]) -> frozenset[str]:
        """Return the service accounts of the pods with a sidecar behind endpoints, also of those that are not ready.

        So the account of a new pod is known before it gets a connection.
        """
        return frozenset(self.accounts_by_address(slices).values())

    def accounts_by_address(self, slices: Iterable[Object[SliceSpec]]) -> Mapping[str, str]:
        """Return the service accounts of the pods with a sidecar behind endpoints, by their address.

        Whoever writes an EndpointSlice may claim an address for a pod of his own, so the pod must have it.
        """
        found = (
            (endpoint.address, self._with_sidecar(one.meta.namespace, *endpoint.pod))
            for one in slices
            for endpoint in one.spec.endpoints
        )
        return {
            address: one.spec.account
            for address, one in found
            if one is not None and address in one.spec.addresses
        }

    def _with_sidecar(self, namespace: str, name: str, uid: str) -> Object[PodSpec] | None:
        pod: Object[PodSpec] | None = self.objects.get("Pod", {}).get((namespace, name))
        return pod if pod is not None and pod.meta.uid == uid and pod.spec.sidecar else None

    def secret(self, key: Key) -> Object[SecretSpec] | None:
        """Return a Secret, or None."""
        self.wanted.add(("Secret", key))
        return self.objects.get("Secret", {}).get(key)

    def config_map(self, key: Key) -> Object[SecretSpec] | None:
        """Return a ConfigMap, or None."""
        self.wanted.add(("ConfigMap", key))
        return self.objects.get("ConfigMap", {}).get(key)

    def config_maps_for(self, gateway: Key) -> tuple[Object[SecretSpec], ...]:
        """Return the ConfigMaps with files of the gateway language for a Gateway, by name."""
        return self._labelled.get(gateway, ())

    @cached_property
    def _labelled(self) -> Mapping[Key, tuple[Object[SecretSpec], ...]]:
        found: dict[Key, list[Object[SecretSpec]]] = {}
        for one in self.all("ConfigMap"):
            if GATEWAY_LABEL in one.meta.labels:
                found.setdefault((one.meta.namespace, one.meta.labels[GATEWAY_LABEL]), []).append(one)
        return {key: tuple(sorted(some, key=lambda one: one.meta.key)) for key, some in found.items()}

    def parameters(self, key: Key) -> Object[GatewayParametersSpec] | None:
        """Return GatewayParameters, or None."""
        return self.objects.get("GatewayParameters", {}).get(key)

    def backend_policies(self, service: Key) -> Mapping[str | None, list[Object[BackendTlsPolicySpec]]]:
        """Return the policies for a Service by the name of a port, None for all ports, the oldest first."""
        return self._backend_policies.get(service, {})

    @cached_property
    def _backend_policies(self) -> Mapping[Key, Mapping[str | None, list[Object[BackendTlsPolicySpec]]]]:
        found: dict[Key, dict[str | None, list[Object[BackendTlsPolicySpec]]]] = {}
        every = sorted(self.all("BackendTLSPolicy"), key=lambda one: (one.meta.created, one.meta.key))
        for policy in every:
            for target in policy.spec.target_refs:
                if (target.group, target.kind) == ("", "Service"):
                    of_service = found.setdefault((policy.meta.namespace, target.name), {})
                    of_service.setdefault(target.section_name, []).append(policy)
        return found

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Return the labels of a Namespace. The API server gives each one its name as a label."""
        found: Object[NamespaceSpec] | None = self.objects.get("Namespace", {}).get(("", namespace))
        return {"kubernetes.io/metadata.name": namespace, **(found.meta.labels if found is not None else {})}

    def slices(self, service: Key) -> tuple[Object[SliceSpec], ...]:
        """Return the EndpointSlices of a Service."""
        return self._slices.get(service, ())

    @cached_property
    def _slices(self) -> Mapping[Key, tuple[Object[SliceSpec], ...]]:
        found: dict[Key, list[Object[SliceSpec]]] = {}
        for one in self.all("EndpointSlice"):
            found.setdefault((one.meta.namespace, one.spec.service), []).append(one)
        return {key: tuple(sorted(some, key=lambda one: one.meta.key)) for key, some in found.items()}

    @cached_property
    def _grants(self) -> frozenset[tuple[str, str, str, str, str, str, str | None]]:
        return frozenset(
            (given.group, given.kind, given.namespace, to.group, to.kind, grant.meta.namespace, to.name)
            for grant in self._reference_grants()
            for given in grant.spec.from_
            for to in grant.spec.to
        )

    def _reference_grants(self) -> Iterable[Object[ReferenceGrantSpec]]:
        return self.all("ReferenceGrant")

    def permits(
        self, kind: str, namespace: str, to_group: str, to_kind: str, to: Key, group: str = GROUP
    ) -> bool:
        """True if an object of a kind may refer to another one, perhaps of another namespace.

        A ReferenceGrant in the namespace of the other object allows it.
        """
        if namespace == to[0]:
            return True
        begin = (group, kind, namespace, to_group, to_kind, to[0])
        return (*begin, to[1]) in self._grants or (*begin, None) in self._grants
