"""Services as upstreams: which of them a route may use, and where their endpoints are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.gateway_api import names
from xds_server.gateway_api.backend_tls import BackendTls, policy_for
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, resolved
from xds_server.gateway_api.objects import Key, Object, ServicePort, ServiceSpec, SliceSpec
from xds_server.gateway_api.route_specs import BackendObject, BackendRef
from xds_server.gateway_api.specs import GROUP

_H2C = "kubernetes.io/h2c"
_WEBSOCKET = "kubernetes.io/ws"


NO_BACKEND = "xds.no-backend"
"""An upstream without endpoints, for connections whose backend cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUpstream:
    """A port of a Service as an upstream. `grpc` is true if a GRPCRoute uses it."""

    service: Key
    port: int
    protocol: str
    websocket: bool
    policy: Key | None = None
    """The BackendTLSPolicy of the port."""
    tls: BackendTls | None = None
    connect_timeout: str = ""
    """The time to open a connection, if it is not the default."""

    @property
    def usable(self) -> bool:
        """False if it needs TLS that cannot be verified: then requests must fail and not go on in plain text."""
        return self.policy is None or self.tls is not None

    @property
    def name(self) -> str:
        """Its name in the gateway language."""
        kind = () if self.protocol == "http1" else (self.protocol,)
        tls = () if self.tls is None else ("tls",) if self.tls.verify else ("tls-unverified",)
        return names.of(*self.service, str(self.port), *kind, *tls, *filter(None, (self.connect_timeout,)))


Resolve = Callable[[BackendRef | BackendObject], ServiceUpstream | Condition]
"""Returns the upstream to which a certain route refers, or why there is none."""


def resolve(
    reference: BackendRef | BackendObject,
    kind: str,
    namespace: str,
    cluster: Cluster,
    *,
    permitted: Collection[Key] = (),
    group: str = GROUP,
    grpc: bool = False,
) -> ServiceUpstream | Condition:
    """Return the upstream to which an object of a kind and namespace refers, or why there is none.

    It is called by `grpc`, or as its port says. Services of other namespaces need a ReferenceGrant, unless they are among
    the `permitted` ones.
    """
    key = (reference.namespace or namespace, reference.name)
    name = "/".join(key)
    if (reference.group, reference.kind) != ("", "Service"):
        written = f"{reference.group}/{reference.kind}" if reference.group else reference.kind
        return resolved("InvalidKind", f"{written} {name} is not a Service")
    if key not in permitted and not cluster.permits(kind, namespace, "", "Service", key, group):
        message = f"the Service {name} is in another namespace, and no ReferenceGrant there allows it"
        return resolved("RefNotPermitted", message)
    service = cluster.service(key)
    if service is None:
        return resolved("BackendNotFound", f"there is no Service {name}")
    if service.spec.external:
        # its host is chosen by whoever may write Services, and would be reached with the rights of the gateway
        return resolved("BackendNotFound", f"the Service {name} is an ExternalName, which has no endpoints")
    port = next((one for one in service.spec.ports if one.port == reference.port), None)
    if port is None:
        return resolved("BackendNotFound", f"the Service {name} has no port {reference.port}")
    if port.protocol != ("UDP" if kind == "UDPRoute" else "TCP"):
        return resolved(
            "UnsupportedProtocol", f"the port {port.port} of the Service {name} is {port.protocol}"
        )
    http2 = port.app_protocol in (_H2C, "grpc", "http2")
    policy = policy_for(key, port.name, cluster)
    return ServiceUpstream(
        policy=policy.policy.meta.key if policy is not None else None,
        tls=policy.tls if policy is not None else None,
        service=key,
        port=port.port,
        protocol="grpc" if grpc or kind == "GRPCRoute" else "http2" if http2 else "http1",
        websocket=port.app_protocol == _WEBSOCKET,
    )


def endpoints(
    service: Object[ServiceSpec], port: int, slices: Iterable[Object[SliceSpec]]
) -> list[dict[str, Any]]:
    """Return the endpoints of a port of a Service in the gateway language.

    These are the ready ones; if there are none, those that serve although they terminate (KEP-1672). A Service of two
    families has each pod in two slices, and its first family counts.
    """
    wanted = next((one for one in service.spec.ports if one.port == port), None)
    if wanted is None:
        return []
    by_family: dict[str, list[tuple[str, int, str, bool]]] = {}
    for one in slices:
        by_family.setdefault(one.spec.family, []).extend(_usable(one.spec, wanted))
    order = [*service.spec.families, "IPv4", "IPv6"]
    found = next((by_family[family] for family in order if by_family.get(family)), [])
    ready = [one for one in found if one[3]] or found
    unique = {(address, number): zone for address, number, zone, _ in ready}
    return [_endpoint(*key, zone) for key, zone in sorted(unique.items())]


def _usable(spec: SliceSpec, wanted: ServicePort) -> Iterable[tuple[str, int, str, bool]]:
    number = spec.ports.get(wanted.name)
    if number is None:
        return
    for one in spec.endpoints:
        if one.ready or one.serving:
            yield one.address, number, one.zone, one.ready


def _endpoint(address: str, port: int, zone: str) -> dict[str, Any]:
    values: dict[str, Any] = {"address": f"[{address}]:{port}" if ":" in address else f"{address}:{port}"}
    if zone:
        values["zone"] = f"/{zone}"  # a zone without its region
    return values


def upstream_values(
    upstream: ServiceUpstream, cluster: Cluster, *, live: bool, certificate: str = ""
) -> Mapping[str, Any]:
    """Return an upstream in the gateway language, for TLS with the secret `certificate`.

    The endpoints of a `live` cluster come later, so that their changes do not concern the upstream. In a folder of
    manifests a Service may have no EndpointSlices, because a controller makes them in a cluster. Then the upstream is
    the Service's name in the DNS of the cluster.
    """
    service = cluster.service(upstream.service)
    if live:
        return _upstream(upstream, [], certificate)
    slices = cluster.slices(upstream.service)
    if service is not None and slices:
        addresses: list[Any] = endpoints(service, upstream.port, slices)
    else:
        namespace, name = upstream.service
        addresses = [f"{name}.{namespace}.svc.cluster.local:{upstream.port}"]
    return _upstream(upstream, addresses, certificate)


def _upstream(upstream: ServiceUpstream, addresses: list[Any], certificate: str) -> Mapping[str, Any]:
    values: dict[str, Any] = {"endpoints": addresses}
    if upstream.protocol != "http1":
        values["protocol"] = upstream.protocol
    if upstream.tls is not None:
        presented = {"client_certificate": certificate} if certificate else {}
        values["tls"] = {**upstream.tls.values(), **presented}
    if upstream.connect_timeout:
        values["connect_timeout"] = upstream.connect_timeout
    return values
