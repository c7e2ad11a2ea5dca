"""The kinds that the controller follows, as the API server knows them, with a local copy of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from xds_server.gateway_api import policy_specs
from xds_server.gateway_api.capture import SIDECAR
from xds_server.gateway_api.objects import KINDS, Kind, Object
from xds_server.kubernetes.api_client import ALL, ApiClient, Selection
from xds_server.kubernetes.resources import Resource
from xds_server.kubernetes.watch_cache import WatchCache

_PLURALS = {
    "GatewayClass": "gatewayclasses",
    "Gateway": "gateways",
    "ListenerSet": "listenersets",
    "HTTPRoute": "httproutes",
    "GRPCRoute": "grpcroutes",
    "TLSRoute": "tlsroutes",
    "TCPRoute": "tcproutes",
    "UDPRoute": "udproutes",
    "ReferenceGrant": "referencegrants",
    "BackendTLSPolicy": "backendtlspolicies",
    "GatewayParameters": "gatewayparameters",
    "GatewayPolicy": "gatewaypolicies",
    "Consumer": "consumers",
    "Plan": "plans",
    "IdentityProvider": "identityproviders",
    "Service": "services",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "Namespace": "namespaces",
    "EndpointSlice": "endpointslices",
    "Pod": "pods",
    "MeshPolicy": "meshpolicies",
    "IngressClass": "ingressclasses",
    "Ingress": "ingresses",
}
_OF_MESH = ("Pod", "MeshPolicy")


def _resource(kind: Kind) -> Resource:
    """Return a kind as the API server knows it."""
    version = "v1beta1" if kind.name == "ReferenceGrant" else "v1"
    if kind.group == policy_specs.GROUP:
        version = policy_specs.VERSION
    return Resource(
        group=kind.group,
        version=version,
        plural=_PLURALS[kind.name],
        kind=kind.name,
        namespaced=kind.namespaced,
    )


RESOURCES: Mapping[str, Resource] = {kind.name: _resource(kind) for kind in KINDS}


def caches(
    client: ApiClient,
    changed: Callable[..., None],
    keep: Callable[[Kind, dict[str, Any]], Object[Any] | None],
    *,
    mesh: bool,
) -> dict[str, WatchCache[Object[Any]]]:
    """Return a cache for each kind of objects that a gateway is made of, and with `mesh` those of a mesh too."""
    return {
        kind.name: WatchCache(
            client,
            RESOURCES[kind.name],
            partial(keep, kind),
            partial(changed, kind.name),
            selection=Selection(labels=SIDECAR) if kind.name == "Pod" else ALL,
        )
        for kind in KINDS
        if mesh or kind.name not in _OF_MESH
    }
