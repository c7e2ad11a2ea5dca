"""Listeners of a Gateway: which of them can be served, and as what in the gateway language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import Mistake
from xds_server.gateway.certificates import check_pair
from xds_server.gateway_api import names
from xds_server.gateway_api.authorities import UnusableAuthority, authority
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, accepted, resolved
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.specs import (
    GROUP,
    FrontendValidation,
    GatewaySpec,
    ListenerSetSpec,
    ListenerSpec,
    RouteKind,
    SecretReference,
)

Owner = Object[GatewaySpec] | Object[ListenerSetSpec]
"""The object that declares a listener."""
_KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
"""The kinds of routes of each protocol that is served."""
_SHARED = {"HTTPS": "TLS"}
"""Protocols that share a port: the server name (SNI) tells their connections apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ListenerState:
    """A listener of a Gateway or of a ListenerSet, its `owner`, with what is true of it.

    Routes attach to it if it is `valid`, also while it has no certificate. `certificates` are the Secrets of its certificates. `clients` says how those of clients are verified, by the PEM of
    `authorities`. It is `served` if Envoy gets it.
    """

    owner: Owner
    spec: ListenerSpec
    kinds: tuple[RouteKind, ...]
    certificates: tuple[Key, ...]
    clients: FrontendValidation | None
    authorities: tuple[str, ...]
    conditions: tuple[Condition, ...]
    valid: bool
    served: bool

    @property
    def name(self) -> str:
        """Its name in the gateway language. Names of Kubernetes have no upper case, so each is another one."""
        if self.owner.kind == "ListenerSet":
            return names.of("SET", *self.owner.meta.key, self.spec.name)
        return names.of(self.spec.name)

    @property
    def hostname(self) -> str:
        """The hosts that it takes; "" for all."""
        return (self.spec.hostname or "").lower()


@remembered
def listener_states(gateway: Object[GatewaySpec], cluster: Cluster) -> tuple[ListenerState, ...]:
    """Return all listeners of a Gateway in their order: its own, and then those of its ListenerSets."""
    conflicts = dict(_conflicts(gateway.spec.listeners))
    taken = _Taken()
    for one in gateway.spec.listeners:
        if one.name not in conflicts:
            taken.take(one)
    own = [_state(gateway, gateway, one, conflicts.get(one.name), cluster) for one in gateway.spec.listeners]
    more = [
        _state(gateway, owner, one, taken.take(one), cluster)
        for owner in cluster.listener_sets(gateway.meta.key)
        if allows(gateway, owner, cluster)
        for one in owner.spec.listeners
    ]
    return (*own, *more)


def allows(gateway: Object[GatewaySpec], owner: Object[ListenerSetSpec], cluster: Cluster) -> bool:
    """True if a Gateway allows a ListenerSet to attach."""
    namespaces = gateway.spec.allowed_listeners.namespaces
    return namespaces.allow(owner.meta.namespace, gateway.meta.namespace, cluster.labels)


class _Taken:
    """What the listeners before have taken: of listeners of several objects, the first one wins."""

    def __init__(self) -> None:
        self._protocols: dict[tuple[int, bool], str] = {}
        self._hostnames: set[tuple[int, bool, str]] = set()

    def take(self, listener: ListenerSpec) -> Condition | None:
        """Note a listener, or return the condition of one that comes too late."""
        port = (listener.port, listener.protocol == "UDP")
        protocol = _SHARED.get(listener.protocol, listener.protocol)
        if self._protocols.get(port, protocol) != protocol:
            message = f"port {listener.port} is also used for {self._protocols[port]}"
            return Condition("Conflicted", True, "ProtocolConflict", message)
        if (*port, (listener.hostname or "").lower()) in self._hostnames:
            message = f"another listener of port {listener.port} has the same hostname"
            return Condition("Conflicted", True, "HostnameConflict", message)
        self._protocols[port] = protocol
        self._hostnames.add((*port, (listener.hostname or "").lower()))
        return None


def _conflicts(listeners: Iterable[ListenerSpec]) -> Iterator[tuple[str, Condition]]:
    """Yield the listeners that are not distinct from another one: by port, protocol and hostname."""
    by_port: dict[tuple[int, bool], list[ListenerSpec]] = {}
    for one in listeners:
        by_port.setdefault((one.port, one.protocol == "UDP"), []).append(one)
    for (port, _), group in by_port.items():
        protocols = {_SHARED.get(one.protocol, one.protocol) for one in group}
        for one in group:
            if len(protocols) > 1:
                others = ", ".join(sorted(protocols - {_SHARED.get(one.protocol, one.protocol)}))
                message = f"port {port} is also used for {others}"
                yield one.name, Condition("Conflicted", True, "ProtocolConflict", message)
            elif sum((other.hostname or "").lower() == (one.hostname or "").lower() for other in group) > 1:
                message = f"another listener of port {port} has the same hostname"
                yield one.name, Condition("Conflicted", True, "HostnameConflict", message)


def _state(
    gateway: Object[GatewaySpec],
    owner: Owner,
    listener: ListenerSpec,
    conflict: Condition | None,
    cluster: Cluster,
) -> ListenerState:
    supported = _KINDS.get(listener.protocol, ())
    kinds, unknown = _route_kinds(listener, supported)
    certificates, refs = _certificates(owner, listener, cluster)
    clients = gateway.spec.tls.validation(listener.port) if listener.protocol == "HTTPS" else None
    authorities, wrong = _authorities(gateway, clients, cluster)
    refs = refs or wrong
    if refs is None and unknown:
        refs = resolved("InvalidRouteKinds", f"{', '.join(unknown)} cannot attach to {listener.protocol}")
    accept = accepted()
    if not supported:
        accept = accepted("UnsupportedProtocol", f"the protocol {listener.protocol} is not supported")
    elif conflict is not None:
        accept = accepted(conflict.reason, conflict.message)
    elif listener.protocol == "HTTPS" and (listener.tls is None or listener.tls.mode == "Passthrough"):
        accept = accepted("UnsupportedValue", "HTTPS needs tls with mode Terminate")
    elif clients is not None and not authorities:
        accept = accepted(
            "NoValidCACertificate", wrong.message if wrong is not None else "no authority is named"
        )
    elif listener.protocol == "TLS" and listener.tls is None:
        accept = accepted("UnsupportedValue", "TLS needs tls with a mode")
    missing = _needs_certificate(listener) and not certificates
    return ListenerState(
        owner=owner,
        spec=listener,
        kinds=kinds,
        certificates=certificates,
        clients=clients,
        authorities=authorities,
        conditions=(
            accept,
            conflict or Condition("Conflicted", False, "NoConflicts"),
            refs or resolved(),
        ),
        valid=accept.status,
        served=accept.status and not missing,
    )


def _needs_certificate(listener: ListenerSpec) -> bool:
    ends_tls = listener.tls is not None and listener.tls.mode == "Terminate"
    return listener.protocol == "HTTPS" or (listener.protocol == "TLS" and ends_tls)


def _route_kinds(
    listener: ListenerSpec, supported: tuple[str, ...]
) -> tuple[tuple[RouteKind, ...], list[str]]:
    """Return the kinds that may attach to a listener, and those that it names in vain."""
    wanted = listener.allowed_routes.kinds
    if not wanted:
        return tuple(RouteKind(kind=kind) for kind in supported), []
    good = tuple(one for one in wanted if one.group == GROUP and one.kind in supported)
    return good, [one.kind for one in wanted if one not in good]


def _certificates(
    owner: Owner, listener: ListenerSpec, cluster: Cluster
) -> tuple[tuple[Key, ...], Condition | None]:
    """Return the Secrets of the certificates of a listener that can be used, and what is wrong with the others."""
    if listener.tls is None or not _needs_certificate(listener):
        return (), None
    good: list[Key] = []
    fault: Condition | None = None
    for reference in listener.tls.certificate_refs:
        key = (reference.namespace or owner.meta.namespace, reference.name)
        wrong = certificate_fault(owner, reference, key, cluster)
        if wrong is None:
            good.append(key)
        fault = fault or wrong
    if not listener.tls.certificate_refs:
        fault = resolved("InvalidCertificateRef", "a certificate is needed: add tls.certificateRefs")
    return tuple(dict.fromkeys(good)), fault


def _authorities(
    gateway: Object[GatewaySpec], clients: FrontendValidation | None, cluster: Cluster
) -> tuple[tuple[str, ...], Condition | None]:
    """Return the authorities that sign client certificates, and what is wrong with others."""
    found: list[str] = []
    fault: Condition | None = None
    for one in clients.authorities if clients is not None else ():
        key = (one.namespace or gateway.meta.namespace, one.name)
        if not cluster.permits("Gateway", gateway.meta.namespace, one.group, one.kind, key):
            message = (
                f"{one.kind} {'/'.join(key)} is in another namespace, and no ReferenceGrant there allows it"
            )
            fault = fault or resolved("RefNotPermitted", message)
            continue
        try:
            found.append(authority(one.group, one.kind, key, cluster))
        except UnusableAuthority as error:
            reason = "InvalidCACertificateKind" if error.what == "kind" else "InvalidCACertificateRef"
            fault = fault or resolved(reason, error.message)
    return tuple(found), fault


def certificate_fault(
    owner: Object[Any], reference: SecretReference, key: Key, cluster: Cluster
) -> Condition | None:
    """Return why an object cannot use the certificate of a Secret, None if it can."""
    name = "/".join(key)
    if (reference.group, reference.kind) != ("", "Secret"):
        return resolved("InvalidCertificateRef", f"{reference.kind} {name} is not a Secret")
    if not cluster.permits(owner.kind, owner.meta.namespace, "", "Secret", key):
        message = f"the Secret {name} is in another namespace, and no ReferenceGrant there allows it"
        return resolved("RefNotPermitted", message)
    secret = cluster.secret(key)
    if secret is None:
        return resolved("InvalidCertificateRef", f"there is no Secret {name}")
    data = secret.spec.data
    if "tls.crt" not in data or "tls.key" not in data:
        return resolved("InvalidCertificateRef", f"the Secret {name} needs tls.crt and tls.key")
    try:
        check_pair(data["tls.crt"], data["tls.key"])
    except Mistake as mistake:
        return resolved("InvalidCertificateRef", f"the Secret {name}: {mistake.message}; {mistake.remedy}")
    return None


def listener_values(state: ListenerState) -> Mapping[str, Any]:
    """Return a listener in the gateway language."""
    values: dict[str, Any] = {"port": state.spec.port}
    if state.spec.protocol in ("TLS", "TCP", "UDP"):
        values["protocol"] = "udp" if state.spec.protocol == "UDP" else "tcp"
    if state.hostname:
        values["hosts"] = [state.hostname]
    if state.certificates:
        values["tls"] = {"certificates": [names.of(*key) for key in state.certificates]}
    if state.clients is not None:
        valid_only = state.clients.mode == "AllowValidOnly"
        values["tls"]["client_certificate"] = {
            "ca": [{"inline": one} for one in state.authorities],
            **({} if valid_only else {"verify": False, "required": False}),
        }
    return values


def secrets(certificates: Iterable[Key]) -> Mapping[str, Any]:
    """Return the secrets of certificates in the gateway language."""
    return {
        names.of(*key): {
            "certificate": {"file": f"{'/'.join(key)}/tls.crt"},
            "private_key": {"file": f"{'/'.join(key)}/tls.key"},
        }
        for key in certificates
    }


def certificate_contents(certificates: Iterable[Key], cluster: Cluster) -> Iterator[tuple[str, bytes]]:
    """Yield the files to which the secrets refer. The certificates have no faults."""
    for key in certificates:
        secret = cluster.secret(key)
        assert secret is not None, "checked with the listener"
        for part in ("tls.crt", "tls.key"):
            yield f"{'/'.join(key)}/{part}", secret.spec.data[part]
