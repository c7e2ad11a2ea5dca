"""Translation of a cluster: for each Gateway of our class its files in the gateway language, and the status of all objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xds_server.gateway_api import addresses, names, parameters, rules
from xds_server.gateway_api.attachment import Attachment
from xds_server.gateway_api.backend_certificate import backend_certificate, references
from xds_server.gateway_api.backend_tls import state_of
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import (
    CONTROLLER,
    Condition,
    GatewayStatus,
    IngressStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    accepted,
    resolved,
)
from xds_server.gateway_api.config_files import config_files
from xds_server.gateway_api.gateway_files import CLOSES, UPSTREAMS_FILE, GatewayFiles
from xds_server.gateway_api.listeners import (
    ListenerState,
    allows,
    certificate_contents,
    listener_states,
    listener_values,
    secrets,
)
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.placement import PlacedRoute, placed_routes
from xds_server.gateway_api.policies import GatewayPolicies, PolicyBook
from xds_server.gateway_api.route_files import RouteFiles
from xds_server.gateway_api.specs import GatewaySpec
from xds_server.gateway_api.upstreams import ServiceUpstream, upstream_values

_GATEWAY_FILE = "gateway.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A cluster in the gateway language, by Gateway, and what is true of its objects."""

    gateways: Mapping[Key, GatewayFiles]
    gateway_statuses: tuple[GatewayStatus, ...]
    route_statuses: tuple[RouteStatus, ...]
    policy_statuses: tuple[PolicyStatus, ...]
    set_statuses: tuple[ListenerSetStatus, ...]
    object_statuses: tuple[ObjectStatus, ...]
    meshes: Mapping[Key, GatewayFiles] = field(default_factory=dict)
    """What the sidecars of a namespace get, by the key of the namespace with an empty name."""
    ingresses: Mapping[Key, GatewayFiles] = field(default_factory=dict)
    """What the Envoys of an IngressClass get."""
    ingress_statuses: tuple[IngressStatus, ...] = ()


def translate(
    cluster: Cluster, *, controller: str = CONTROLLER, of_every_class: bool = False, live: bool = False
) -> Translation:
    """Return the translation of a cluster. Gateways of other controllers are left out, unless every class is ours.

    The endpoints of a `live` cluster are left out too, because they change often and concern nothing else.
    """
    cluster.memory.begin(cluster)
    classes = {one.meta.name for one in cluster.classes() if one.spec.controller_name == controller}
    ours = sorted(
        (one for one in cluster.gateways() if of_every_class or one.spec.gateway_class_name in classes),
        key=lambda one: one.meta.key,
    )
    listeners = {one.meta.key: listener_states(one, cluster) for one in ours}
    placed = list(placed_routes(listeners, cluster))
    attached = {key: [one for one in placed if key in one.places] for key in listeners}
    book = PolicyBook.of(cluster)
    policies = {
        key: GatewayPolicies(book, key, (one.route for one in found)) for key, found in attached.items()
    }
    gateways = {
        one.meta.key: _files(
            one, listeners[one.meta.key], attached[one.meta.key], cluster, policies[one.meta.key], live=live
        )
        for one in ours
    }
    statuses = [
        _gateway_status(one, listeners[one.meta.key], attached[one.meta.key], policies[one.meta.key], cluster)
        for one in ours
    ]
    return Translation(
        gateways=gateways,
        gateway_statuses=tuple(statuses),
        route_statuses=tuple(_route_statuses(placed, policies, cluster)),
        policy_statuses=tuple(_policy_statuses(attached, cluster)),
        set_statuses=tuple(
            status
            for one in ours
            for status in _set_statuses(one, listeners[one.meta.key], attached[one.meta.key], cluster)
        ),
        object_statuses=tuple(book.statuses(policies)),
    )


def _route_statuses(
    placed: Iterable[PlacedRoute], policies: Mapping[Key, GatewayPolicies], cluster: Cluster
) -> Iterable[RouteStatus]:
    """Yield the status of each route that leads to a Gateway."""
    known = cluster.memory.table(_route_statuses)
    before = dict(known)
    known.clear()
    for one in placed:
        if any(policies[key].concern(one.route) for key in one.places):
            yield _route_status(one, policies)
            continue
        if id(one) not in before:
            before[id(one)] = (one, _route_status(one, policies))
        known[id(one)] = before[id(one)]
        yield known[id(one)][1]


def _route_status(placed: PlacedRoute, policies: Mapping[Key, GatewayPolicies]) -> RouteStatus:
    route = placed.route
    return RouteStatus(
        kind=route.kind,
        key=route.meta.key,
        generation=route.meta.generation,
        parents=tuple(
            parent_status(one, placed.translated, policies[key].affecting(route.kind, route.meta.key))
            for key, found in sorted(placed.places.items())
            for one in found.attachments
        ),
    )


def _policy_statuses(attached: Mapping[Key, list[PlacedRoute]], cluster: Cluster) -> Iterable[PolicyStatus]:
    """Yield the status of each BackendTLSPolicy at the Gateways whose routes use one of its Services."""
    every = list(cluster.all("BackendTLSPolicy"))
    users: dict[Key, dict[Key, None]] = {}
    for gateway, found in attached.items() if every else ():
        for one in found:
            for upstream in one.translated.upstreams:
                users.setdefault(upstream.service, {})[gateway] = None
    for policy in every:
        services = ((policy.meta.namespace, target.name) for target in policy.spec.target_refs)
        gateways = sorted({gateway for service in services for gateway in users.get(service, ())})
        if gateways:
            yield PolicyStatus(
                key=policy.meta.key,
                generation=policy.meta.generation,
                gateways=tuple(gateways),
                conditions=state_of(policy, cluster).conditions,
            )


def parent_status(
    one: Attachment, translated: rules.Translated, affecting: tuple[Condition, ...] = ()
) -> ParentStatus:
    """Return what is true of a route at one of its parents. `affecting` are conditions about policies."""
    wrong = {fault.type: fault for fault in reversed(translated.faults)}
    accept = one.accepted if not one.accepted.status else wrong.get("Accepted", accepted())
    partly = (wrong["PartiallyInvalid"],) if "PartiallyInvalid" in wrong else ()
    return ParentStatus(
        parent=one.parent, conditions=(accept, wrong.get("ResolvedRefs", resolved()), *partly, *affecting)
    )


def _gateway_status(
    gateway: Object[GatewaySpec],
    listeners: Iterable[ListenerState],
    attached: Iterable[PlacedRoute],
    policies: GatewayPolicies,
    cluster: Cluster,
) -> GatewayStatus:
    own = [one for one in listeners if one.owner is gateway]
    states = _listener_statuses(own, _counts(gateway.meta.key, attached))
    valid = [one for one in own if one.valid]
    accept = accepted()
    if len(valid) < len(own):
        bad = ", ".join(one.spec.name for one in own if not one.valid)
        message = f"listeners with faults: {bad}"
        accept = Condition("Accepted", bool(valid), "ListenersNotValid", message)
    _, wrong = parameters.of_gateway(gateway, cluster)
    accept = addresses.unsupported(gateway.spec) or wrong or accept
    insecure = [
        one.spec.name
        for one in listeners
        if one.clients is not None and one.clients.mode == "AllowInsecureFallback"
    ]
    conditions = [accept, references(gateway, own, cluster), *policies.affecting("Gateway", gateway.meta.key)]
    if insecure:
        message = f"client certificates are not verified at: {', '.join(insecure)}"
        conditions.append(Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", message))
    return GatewayStatus(
        key=gateway.meta.key,
        generation=gateway.meta.generation,
        conditions=tuple(conditions),
        listeners=states,
        wanted_addresses=addresses.wanted(gateway.spec),
        attached_sets=len(
            {one.owner.meta.key for one in listeners if one.owner is not gateway and one.served}
        ),
    )


def _counts(gateway: Key, attached: Iterable[PlacedRoute]) -> Mapping[str, int]:
    """Return the number of routes of each listener of a Gateway."""
    return Counter(name for one in attached for name in one.places[gateway].listeners)


def _listener_statuses(
    listeners: Iterable[ListenerState], attached: Mapping[str, int]
) -> tuple[ListenerStatus, ...]:
    return tuple(
        ListenerStatus(
            name=one.spec.name,
            kinds=one.kinds,
            attached=attached.get(one.name, 0),
            conditions=one.conditions,
        )
        for one in listeners
    )


def _set_statuses(
    gateway: Object[GatewaySpec],
    listeners: Iterable[ListenerState],
    attached: Iterable[PlacedRoute],
    cluster: Cluster,
) -> Iterable[ListenerSetStatus]:
    """Yield the status of each ListenerSet that names a Gateway."""
    counts = _counts(gateway.meta.key, attached)
    for owner in cluster.listener_sets(gateway.meta.key):
        own = [one for one in listeners if one.owner is owner]
        bad = ", ".join(one.spec.name for one in own if not one.served)
        accept = accepted()
        if not allows(gateway, owner, cluster):
            accept = accepted("NotAllowed", "the Gateway does not allow ListenerSets of this namespace")
        elif bad:
            served = any(one.served for one in own)
            accept = Condition("Accepted", served, "ListenersNotValid", f"listeners with faults: {bad}")
        yield ListenerSetStatus(
            key=owner.meta.key,
            generation=owner.meta.generation,
            gateway=gateway.meta.key,
            accepted=accept,
            listeners=_listener_statuses(own, counts),
        )


def _files(
    gateway: Object[GatewaySpec],
    listeners: tuple[ListenerState, ...],
    attached: Iterable[PlacedRoute],
    cluster: Cluster,
    policies: GatewayPolicies,
    *,
    live: bool,
) -> GatewayFiles:
    """Return a Gateway in the gateway language: a file for it, one for each route object, and one for all upstreams."""
    served = [one for one in listeners if one.served]
    own, _ = backend_certificate(gateway, cluster)
    certificates = dict.fromkeys(key for one in served for key in one.certificates)
    certificates |= {own: None} if own is not None else {}
    contents = dict(certificate_contents(certificates, cluster)) | policies.contents
    files = {_GATEWAY_FILE: _gateway_file(served, certificates), **policies.files}
    origins: dict[str, Object[Any]] = {_GATEWAY_FILE: gateway, **policies.origins}
    upstreams = {one.name: one for one in policies.upstreams}
    closes = False
    ports = {one.name: _redirect_port(one) for one in served}
    route_files = RouteFiles(ports, policies, cluster.memory.table((RouteFiles, gateway.meta.key)))
    for placed in attached:
        values = route_files.of(placed, placed.places[gateway.meta.key])
        if values is not None:
            files[placed.file], origins[placed.file] = values, placed.route
            upstreams |= placed.upstreams
            closes = closes or placed.translated.closes
    presented = names.of(*own) if own is not None else ""
    files[UPSTREAMS_FILE] = upstreams_file(
        upstreams, cluster, closes=closes, live=live, certificate=presented
    )
    written = config_files(gateway.meta.key, cluster)
    return GatewayFiles(
        files=files,
        contents={**written.contents, **contents},
        origins={**origins, **written.origins},
        upstreams=upstreams,
        ports=_ports(gateway, listeners),
        texts=written.texts,
        problems=written.problems,
    )


def _ports(gateway: Object[GatewaySpec], listeners: Iterable[ListenerState]) -> frozenset[tuple[int, str]]:
    """Return the ports of a Gateway's own listeners, and of those of its ListenerSets that are served."""
    wanted = (one.spec for one in listeners if one.owner is gateway or one.served)
    return frozenset((one.port, "UDP" if one.protocol == "UDP" else "TCP") for one in wanted)


def upstreams_file(
    upstreams: Mapping[str, ServiceUpstream],
    cluster: Cluster,
    *,
    closes: bool,
    live: bool,
    certificate: str = "",
) -> Mapping[str, Any]:
    """Return the file of all upstreams, with the one without endpoints if a route `closes` connections.

    Those with TLS get the secret `certificate`, if there is one.
    """
    declared: dict[str, Any] = {
        name: upstream_values(one, cluster, live=live, certificate=certificate)
        for name, one in sorted(upstreams.items())
    }
    if closes:
        declared |= CLOSES
    return {"upstreams": declared}


def _gateway_file(served: Iterable[ListenerState], certificates: Iterable[Key]) -> Mapping[str, Any]:
    values: dict[str, Any] = {"listeners": {one.name: listener_values(one) for one in served}}
    found = secrets(certificates)
    return values | ({"secrets": found} if found else {})


def _redirect_port(listener: ListenerState) -> int | None:
    """Return the port of a listener as a URL has it: None for the one that its scheme implies (RFC 9110 section 4.2)."""
    implied = {"HTTP": 80, "HTTPS": 443}.get(listener.spec.protocol)
    return None if listener.spec.port == implied else listener.spec.port
